package record

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/machine/spec"
)

// TestCacheSeesChanges checks that the cache never returns a record that was
// replaced, removed or damaged.
func TestCacheSeesChanges(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "0123456789ab")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	rec := &Record{ID: filepath.Base(dir), Config: spec.Config{Name: "one"}, State: StateExited}
	write := func() {
		t.Helper()
		if err := rec.Write(dir); err != nil {
			t.Fatal(err)
		}
	}
	var c cache
	name := func() string {
		t.Helper()
		got, err := c.read(dir)
		if err != nil {
			return err.Error()
		}
		return got.Config.Name
	}
	write()
	if got := name(); got != "one" || len(c.records) != 0 {
		t.Errorf("a file that is less than a second old: %q, cached: %v", got, c.records)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for len(c.records) == 0 && t.Context().Err() == nil { // until the file is a second old
		<-tick.C
		name()
	}
	// Change the cached record, to see that the cache returns it.
	known := c.records[rec.ID]
	known.rec.Config.Name = "cached"
	if got := name(); got != "cached" {
		t.Errorf("the same file: %q", got)
	}
	got, err := c.read(dir)
	if err != nil {
		t.Fatal(err)
	}
	got.State = StateRunning // in the caller's copy
	if known.rec.State != StateExited {
		t.Error("a caller has changed the cached record")
	}
	rec.Config.Name = "two" // the file keeps its size
	write()
	if got := name(); got != "two" {
		t.Errorf("replaced: %q", got)
	}
	if err := os.Remove(filepath.Join(dir, FileName)); err != nil {
		t.Fatal(err)
	}
	if got := name(); got == "two" || got == "cached" {
		t.Errorf("removed: %q", got)
	}
	c.keep(nil)
	if len(c.records) != 0 {
		t.Errorf("a removed machine is cached: %v", c.records)
	}
}
