package machine

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/test/support/testmachine"
)

func TestRemove(t *testing.T) {
	s := openStore(t)
	rec, dir := testmachine.Lock(t, s.root, "box", nil)
	if err := s.Remove(t.Context(), rec.ID); !errors.Is(err, record.ErrRunning) {
		t.Fatalf("removing a machine that runs: %v", err)
	}
	dir.Close()
	if err := s.Remove(t.Context(), rec.ID); err != nil {
		t.Fatal(err)
	}
	if records, _, err := s.Machines(); err != nil || len(records) != 0 {
		t.Errorf("after the removal: %v, %v", records, err)
	}
}

// TestR3RemoveAfterAKill checks that Remove kills the monitor that a killed
// supervisor has left, and no unrelated process.
func TestR3RemoveAfterAKill(t *testing.T) {
	s := openStore(t)
	m := testmachine.Kill(t, s.root, s.mustCreate(t, options(t, "box")).ID, record.StateRunning)
	dir, err := s.root.Lock(m.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), m.ID); !errors.Is(err, record.ErrRunning) {
		t.Errorf("remove a locked machine: %v", err)
	}
	dir.Close()
	if err := s.Remove(t.Context(), m.ID); err != nil {
		t.Fatal(err)
	}
	if testmachine.CheckEmpty(t, s.root); m.Monitor.Alive(t) || !m.Unrelated.Alive(t) {
		t.Errorf("the monitor is alive: %v, the unrelated process: %v", m.Monitor.Alive(t), m.Unrelated.Alive(t))
	}
}

func TestPrune(t *testing.T) {
	s := openStore(t)
	o := options(t, "")
	var recs []*record.Record
	for range 3 {
		recs = append(recs, s.mustCreate(t, o))
	}
	dir, err := s.root.Lock(recs[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	const size = 64 << 10
	if err := os.WriteFile(filepath.Join(s.root.DataDir(recs[2].ID), "console.log"), make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	ids, freed, err := s.Prune(t.Context(), func(r *record.Record) bool { return r.ID == recs[1].ID })
	if err != nil || !slices.Equal(ids, []string{recs[2].ID}) || freed < size || freed > 2*size {
		t.Errorf("Prune = %q, %d, %v", ids, freed, err)
	}
	for _, rec := range recs[:2] {
		if _, err := s.Find(rec.ID); err != nil {
			t.Error(err)
		}
	}
}
