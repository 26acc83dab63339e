package qemu_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/qemu"
)

// TestChooseAccel covers the outcomes of a probe. It calls ChooseAccel twice;
// the second result comes from the cache.
func TestChooseAccel(t *testing.T) {
	for _, row := range []struct {
		mode   string
		want   vmm.Accel
		notice string
	}{
		{"sound", vmm.KVM, ""},
		{"sound but stuck", vmm.KVM, ""},
		{"hang", vmm.TCG, "no sign of life within"},
		{"mute", vmm.TCG, "no sign of life within"},
		{"crash", vmm.TCG, "KVM internal error"},
		{"refuse", vmm.TCG, "Could not access KVM kernel module: Permission denied"},
		{"quiet end", vmm.TCG, "no sign of life before its end"},
	} {
		t.Run(row.mode, func(t *testing.T) {
			t.Parallel()
			f := newFake(t, row.mode)
			f.ProbeTimeout = time.Minute
			if strings.Contains(row.notice, "within") || strings.Contains(row.mode, "stuck") {
				f.ProbeTimeout = 5 * time.Second
			}
			cfg, cache := fakeConfig(t), filepath.Join(t.TempDir(), "accel")
			for range 2 {
				got, notice, err := f.ChooseAccel(t.Context(), cfg, probeAnswer, cache, "kernel 1")
				if got != row.want || err != nil {
					t.Fatalf("%q, %v, want %q", got, err, row.want)
				}
				if (notice == "") != (row.notice == "") || !strings.Contains(notice, row.notice) {
					t.Errorf("notice %q, want one with %q", notice, row.notice)
				}
				if len(notice) > 8<<10 {
					t.Errorf("notice of %d bytes", len(notice))
				}
			}
			if n := f.runs(t); n != 1 {
				t.Errorf("%d probes, want 1: the second result is cached", n)
			}
			if accel, why, err := f.KnownAccel(cache); accel != row.want || !strings.Contains(why, row.notice) || err != nil {
				t.Errorf("known are %q, %q, %v", accel, why, err)
			}
			if accel, _, err := f.KnownAccel(cache + "-none"); accel != "" || err != nil {
				t.Errorf("known without a probe: %q, %v", accel, err)
			}
		})
	}
}

// TestChooseAccelProbesAgain covers caches that are for something else or
// damaged.
func TestChooseAccelProbesAgain(t *testing.T) {
	f := newFake(t, "sound")
	cfg, cache := fakeConfig(t), filepath.Join(t.TempDir(), "accel")
	want := 0
	ask := func(why, key string) {
		t.Helper()
		want++
		if got, notice, err := f.ChooseAccel(t.Context(), cfg, probeAnswer, cache, key); got != vmm.KVM || notice != "" || err != nil {
			t.Fatalf("%s: %q, %q, %v", why, got, notice, err)
		}
		if n := f.runs(t); n != want {
			t.Errorf("%s: %d probes, want %d", why, n, want)
		}
	}
	ask("no cache", "kernel 1")
	ask("another kernel", "kernel 2")
	whole, err := os.ReadFile(cache)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ why, text string }{
		{"empty", ""},
		{"cut short", string(whole[:len(whole)/2])},
		{"not JSON", "kvm"},
		{"another type", `["kvm"]`},
		{"another boot", strings.Replace(string(whole), `"boot":"`, `"boot":"0`, 1)},
		{"another accelerator", strings.Replace(string(whole), `"accel":"kvm"`, `"accel":"hvf"`, 1)},
		{"no KVM without a notice", strings.Replace(string(whole), `"accel":"kvm"`, `"accel":"tcg"`, 1)},
	} {
		if row.text == string(whole) {
			t.Fatalf("%s: nothing was changed", row.why)
		}
		if err := os.WriteFile(cache, []byte(row.text), 0o600); err != nil {
			t.Fatal(err)
		}
		ask(row.why, "kernel 2")
	}
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(f.Path, later, later); err != nil {
		t.Fatal(err)
	}
	ask("another QEMU", "kernel 2")
}

func TestChooseAccelWithoutKVM(t *testing.T) {
	f := newFake(t, "sound")
	cfg, cache := fakeConfig(t), filepath.Join(t.TempDir(), "accel")
	rows := []struct{ name, device, want string }{
		{"no device", filepath.Join(t.TempDir(), "kvm"), "does not exist: load the module"},
		{"a folder", t.TempDir(), "is a directory"},
	}
	if os.Geteuid() != 0 { // root may open any file
		closed := filepath.Join(t.TempDir(), "kvm")
		if err := os.WriteFile(closed, nil, 0o000); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, struct{ name, device, want string }{"a closed device", closed, "join its group"})
	}
	for _, row := range rows {
		f.KVM = row.device
		got, notice, err := f.ChooseAccel(t.Context(), cfg, probeAnswer, cache, "k")
		if got != vmm.TCG || err != nil || !strings.Contains(notice, row.device) || !strings.Contains(notice, row.want) {
			t.Errorf("%s: %q, %q, %v", row.name, got, notice, err)
		}
	}
	if n := f.runs(t); n != 0 {
		t.Errorf("%d probes, want none", n)
	}
	if _, err := os.Stat(cache); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a cache was written: %v", err)
	}
}

// An error that is not a fault of KVM is returned and does not select TCG.
func TestChooseAccelErrors(t *testing.T) {
	f := newFake(t, "hang")
	cfg, cache := fakeConfig(t), filepath.Join(t.TempDir(), "accel")
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if got, _, err := f.ChooseAccel(ctx, cfg, probeAnswer, cache, "k"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("no kernel", func(t *testing.T) {
		cfg := cfg
		cfg.Kernel = filepath.Join(t.TempDir(), "none")
		if got, _, err := f.ChooseAccel(t.Context(), cfg, probeAnswer, cache, "k"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("no program", func(t *testing.T) {
		missing := qemu.Monitor{Path: filepath.Join(t.TempDir(), "qemu")}
		if got, _, err := missing.ChooseAccel(t.Context(), cfg, probeAnswer, cache, "k"); !errors.Is(err, vmm.ErrMissing) {
			t.Errorf("%q, %v", got, err)
		}
	})
	if _, err := os.Stat(cache); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a cache was written: %v", err)
	}
}

func TestFind(t *testing.T) {
	f := newFake(t, "version")
	if path, version, err := f.Find(t.Context()); path != f.Path || version != "9.9.9 (test)" || err != nil {
		t.Errorf("%q, %q, %v", path, version, err)
	}
	f = newFake(t, "no version")
	if _, _, err := f.Find(t.Context()); err == nil || !strings.Contains(err.Error(), `"hello"`) {
		t.Errorf("a program without a version: %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	if _, _, err := (qemu.Monitor{}).Find(t.Context()); !errors.Is(err, vmm.ErrMissing) {
		t.Errorf("no program: %v", err)
	}
}

// BenchmarkChooseAccel probes with a fake, which answers at once, and reads the result
// of a probe. A real probe boots a kernel.
func BenchmarkChooseAccel(b *testing.B) {
	f, cfg, cache := newFake(b, "sound"), fakeConfig(b), filepath.Join(b.TempDir(), "accel")
	for _, name := range []string{"probe", "cached"} {
		b.Run(name, func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				key := name
				if name == "probe" {
					key = strconv.Itoa(i) // another kernel each time
				}
				if got, _, err := f.ChooseAccel(b.Context(), cfg, probeAnswer, cache, key); got != vmm.KVM || err != nil {
					b.Fatal(got, err)
				}
			}
		})
	}
}
