package record_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/machine/ledger"
	"github.com/banger-vm/banger/internal/machine/ledger/resource"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/test/support/testmachine"
)

func TestOpenRootNeedsAPrivateFolder(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // the test needs a folder that others can enter
		t.Fatal(err)
	}
	if _, err := record.OpenRoot(t.TempDir(), dir); err == nil {
		t.Error("OpenRoot accepts a runtime folder that others can enter")
	}
}

// TestRuntimeDirOfAnotherEnvironment checks that a running machine is found by its
// ledger if this process has another runtime folder than the one that started it.
func TestRuntimeDirOfAnotherEnvironment(t *testing.T) {
	root := testmachine.OpenRoot(t)
	rec, dir := testmachine.Lock(t, root, "box", nil)
	defer dir.Close()
	j, err := record.OpenJournal(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	want := root.RuntimeDir(rec.ID)
	if err := j.Maker.Reserve(resource.File{Kind: ledger.Folder, Path: want}); err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	if err := os.Chmod(other, 0o700); err != nil {
		t.Fatal(err)
	}
	second, err := record.OpenRoot(root.Path(), other)
	if err != nil {
		t.Fatal(err)
	}
	if got := second.RuntimeDir(rec.ID); got != want {
		t.Errorf("runtime folder %s, want %s", got, want)
	}
	const none = "ffffffffffff"
	if got := second.RuntimeDir(none); got != filepath.Join(second.Runtime(), none) {
		t.Errorf("runtime folder of no machine: %s", got)
	}
}

func TestExclusivelyEndsWithItsContext(t *testing.T) {
	root := testmachine.OpenRoot(t)
	err := root.Exclusively(t.Context(), func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		return root.Exclusively(ctx, func() error { return nil })
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error = %v, want the deadline's", err)
	}
}

func TestListIsNewestFirst(t *testing.T) {
	root := testmachine.OpenRoot(t)
	for name, age := range map[string]time.Duration{"old": 3 * time.Hour, "new": time.Hour, "middle": 2 * time.Hour} {
		_, dir := testmachine.Lock(t, root, name, func(r *record.Record) { r.Created = time.Now().Add(-age) })
		dir.Close()
	}
	records, _, err := root.List()
	var names []string
	for _, r := range records {
		names = append(names, r.Config.Name)
	}
	if err != nil || !slices.Equal(names, []string{"new", "middle", "old"}) {
		t.Errorf("names = %q, %v", names, err)
	}
}

// TestFindID checks the references by which a machine is found.
func TestFindID(t *testing.T) {
	root := testmachine.OpenRoot(t)
	rec, dir := testmachine.Lock(t, root, "box", nil)
	defer dir.Close()
	for _, ref := range []string{"box", rec.ID, rec.ID[:5]} {
		if id, err := root.FindID(ref); err != nil || id != rec.ID {
			t.Errorf("FindID(%q) = %q, %v", ref, id, err)
		}
	}
	for _, ref := range []string{"", "bo", "ffffffffffff"} {
		if id, err := root.FindID(ref); !errors.Is(err, record.ErrNotFound) {
			t.Errorf("FindID(%q) = %q, %v, want ErrNotFound", ref, id, err)
		}
	}
}

// TestLocksExcludeEachOther checks the errors for a machine that is locked, and for
// one that does not exist.
func TestLocksExcludeEachOther(t *testing.T) {
	root := testmachine.OpenRoot(t)
	rec, dir := testmachine.Lock(t, root, "box", nil)
	if _, err := root.Claim(t.Context(), rec.ID); !errors.Is(err, record.ErrRunning) || !root.IsLocked(rec.ID) {
		t.Errorf("a locked machine: %v, want ErrRunning", err)
	}
	dir.Unlock()
	if root.IsLocked(rec.ID) {
		t.Error("the machine is still locked")
	}
	again, err := root.Claim(t.Context(), rec.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Delete(); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{rec.ID, "../machines", ""} {
		if _, err := root.Claim(t.Context(), id); !errors.Is(err, record.ErrNotFound) {
			t.Errorf("Claim(%q): %v, want ErrNotFound", id, err)
		}
	}
}
