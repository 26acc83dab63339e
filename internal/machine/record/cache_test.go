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
	var m cache
	name := func() string {
		t.Helper()
		got, err := m.read(dir)
		if err != nil {
			return err.Error()
		}
		return got.Config.Name
	}
	write()
	if got := name(); got != "one" || len(m.records) != 0 {
		t.Errorf("a file of this second: %q, remembered: %v", got, m.records)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for len(m.records) == 0 && t.Context().Err() == nil { // until it is a second old
		<-tick.C
		name()
	}
	// What is remembered is used: another record in memory would be returned.
	known := m.records[rec.ID]
	known.rec.Config.Name = "remembered"
	if got := name(); got != "remembered" {
		t.Errorf("the same file: %q", got)
	}
	got, err := m.read(dir)
	if err != nil {
		t.Fatal(err)
	}
	got.State = StateRunning // the caller's own
	if known.rec.State != StateExited {
		t.Error("a caller has changed what is remembered")
	}
	rec.Config.Name = "two" // of the same size
	write()
	if got := name(); got != "two" {
		t.Errorf("replaced: %q", got)
	}
	if err := os.Remove(filepath.Join(dir, FileName)); err != nil {
		t.Fatal(err)
	}
	if got := name(); got == "two" || got == "remembered" {
		t.Errorf("removed: %q", got)
	}
	m.keep(nil)
	if len(m.records) != 0 {
		t.Errorf("a machine that is gone is remembered: %v", m.records)
	}
}
