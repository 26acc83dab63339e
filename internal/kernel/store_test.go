package kernel

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/kernel/kerneltest"
)

func openStore(t testing.TB) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// addKernel publishes a kernel whose file is content. Its release ends in
// content, and the first byte of content is the time of its addition.
func addKernel(t *testing.T, s *Store, content string, names ...string) *Kernel {
	t.Helper()
	b, err := NewBuilder(filepath.Join(t.TempDir(), "new"))
	if err != nil {
		t.Fatal(err)
	}
	b.Release, b.Arch, b.Names = "6.1."+content, "amd64", names
	b.Added = time.Unix(int64(content[0]), 0).UTC()
	if err := b.AddFile(KernelFile, []byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := b.Finish(); err != nil {
		t.Fatal(err)
	}
	k, _, err := s.Publish(t.Context(), b, false)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestFindAndRemove(t *testing.T) {
	s := openStore(t)
	a, b := addKernel(t, s, "1", "a", "shared"), addKernel(t, s, "2", "b", "shared")
	for ref, want := range map[string]*Kernel{
		"a": a, "b": b, "shared": b, string(a.ID): a, a.ID.Hex()[:6]: a, "6.1.2": b,
	} {
		if k, err := s.Find(ref); err != nil || k.ID != want.ID {
			t.Errorf("find %s: %v, %v", ref, k, err)
		}
	}
	for _, ref := range []string{"", "c", "6.1.3", a.ID.Hex()[:3], "../" + a.ID.Hex()} {
		if _, err := s.Find(ref); !errors.Is(err, ErrNotFound) {
			t.Errorf("find %q: %v", ref, err)
		}
	}
	if _, _, err := s.Remove(t.Context(), "6.1.2", false); err == nil {
		t.Error("two names were removed without force")
	}
	if _, deleted, err := s.Remove(t.Context(), "shared", false); deleted || err != nil {
		t.Errorf("a name of two: %v, %v", deleted, err)
	}
	if _, deleted, err := s.Remove(t.Context(), "b", false); !deleted || err != nil {
		t.Errorf("the last name: %v, %v", deleted, err)
	}
	if kernels, _, err := s.List(); err != nil || len(kernels) != 1 || kernels[0].ID != a.ID || len(kerneltest.Leftovers(t, s.dir)) != 0 {
		t.Errorf("left: %v, %v, %v", kernels, kerneltest.Leftovers(t, s.dir), err)
	}
}

func TestSameReleaseIsAmbiguous(t *testing.T) {
	kernels := []*Kernel{{Manifest: Manifest{Release: "6.1"}}, {Manifest: Manifest{Release: "6.1"}}}
	if _, err := find(kernels, "6.1"); err == nil {
		t.Error("one of two was chosen")
	} else if e, ok := errors.AsType[*AmbiguousError](err); !ok || len(e.Kernels) != 2 {
		t.Errorf("got %v", err)
	}
}

func TestDamagedManifests(t *testing.T) {
	for name, change := range map[string]func(string) string{
		"empty":             func(string) string { return "" },
		"garbage":           func(string) string { return "\x00{" },
		"truncated":         func(s string) string { return s[:len(s)/2] },
		"of a newer schema": func(s string) string { return strings.Replace(s, `"schema": 1`, `"schema": 2`, 1) },
		"of another kernel": func(s string) string { return strings.Replace(s, "6.1.1", "6.1.9", 1) },
		"release is a path": func(s string) string { return strings.Replace(s, "6.1.1", "../..", 1) },
		"file outside":      func(s string) string { return strings.Replace(s, `"kernel": {`, `"../kernel": {`, 1) },
		"digest changed":    func(s string) string { return strings.Replace(s, `"digest": "sha256:6`, `"digest": "sha256:7`, 1) },
		"too large":         func(s string) string { return s + strings.Repeat(" ", maxManifest) },
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			k := addKernel(t, s, "1", "a")
			addKernel(t, s, "2", "b")
			path := k.Path(KernelFile)
			path = filepath.Join(filepath.Dir(path), manifestFile)
			before := string(kerneltest.ReadFile(t, path))
			if change(before) == before {
				t.Fatal("nothing was changed")
			}
			if err := os.WriteFile(path, []byte(change(before)), 0o600); err != nil {
				t.Fatal(err)
			}
			kernels, damaged, err := s.List()
			if err != nil || len(kernels) != 1 || len(damaged) != 1 || !strings.Contains(damaged[0].Error(), path) {
				t.Fatalf("got %d kernels, damaged %v, %v", len(kernels), damaged, err)
			}
			if _, err := s.Find("a"); err == nil || errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), path) {
				t.Errorf("find: %v", err)
			}
			if found, err := s.Find("b"); err != nil || found.Release != "6.1.2" {
				t.Errorf("find one that is whole: %v, %v", found, err)
			}
			for _, ref := range []string{"a", k.ID.Hex()[:12], strings.Repeat("0", 64)} {
				if _, deleted, err := s.Remove(t.Context(), ref, true); deleted || err == nil || errors.Is(err, ErrNotFound) {
					t.Errorf("remove %s: %v, %v", ref, deleted, err)
				}
			}
			if gone, deleted, err := s.Remove(t.Context(), string(k.ID), false); !deleted || err != nil || gone.ID != k.ID {
				t.Errorf("remove by the full ID: %v, %v, %v", gone, deleted, err)
			}
			if _, err := s.Find("a"); !errors.Is(err, ErrNotFound) {
				t.Errorf("find when it is removed: %v", err)
			}
			addKernel(t, s, "1", "a")
			if err := os.WriteFile(path, []byte(change(before)), 0o600); err != nil {
				t.Fatal(err)
			}
			addKernel(t, s, "1", "a")
			if _, damaged, _ := s.List(); len(damaged) != 0 {
				t.Errorf("a new kernel did not replace the damaged one: %v", damaged)
			}
		})
	}
}

// TestNameClaimedTwiceBelongsToTheNewerKernel has the manifests that a process leaves
// if it is killed between the two writes that move a name.
func TestNameClaimedTwiceBelongsToTheNewerKernel(t *testing.T) {
	s := openStore(t)
	a, b := addKernel(t, s, "1", "x"), addKernel(t, s, "2", "y")
	b.Names = []string{"x"}
	if err := b.writeManifest(); err != nil {
		t.Fatal(err)
	}
	if k, err := s.Find("x"); err != nil || k.ID != b.ID {
		t.Errorf("got %v, %v", k, err)
	}
	kernels, _, err := s.List()
	if err != nil || kernels[1].ID != a.ID || len(kernels[1].Names) != 0 {
		t.Errorf("the older one keeps %v, %v", kernels[1].Names, err)
	}
}

func TestSweepRemovesScratchOfKilledCommands(t *testing.T) {
	s := openStore(t)
	addKernel(t, s, "1", "a")
	if err := os.MkdirAll(filepath.Join(s.dir, ".banger-dead", "new"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if kernels, _, err := s.List(); err != nil || len(kernels) != 1 || len(kerneltest.Leftovers(t, s.dir)) != 0 {
		t.Errorf("left %v, %v, %v", kernels, kerneltest.Leftovers(t, s.dir), err)
	}
}
