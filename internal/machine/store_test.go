package machine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/repair"
	"github.com/banger-vm/banger/internal/machine/spec"
)

func openStore(t testing.TB) *Store {
	t.Helper()
	dir := t.TempDir()
	runtime := filepath.Join(dir, "run")
	if err := os.Mkdir(runtime, 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := Open(filepath.Join(dir, "data"), runtime)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// make makes a machine whose owner is this test.
func (s *Store) make(t *testing.T, name string, change func(*record.Record)) (*record.Record, *record.Folder) {
	t.Helper()
	id, err := record.NewID()
	if err != nil {
		t.Fatal(err)
	}
	rec := &record.Record{ID: id, Config: spec.Config{Name: name}, Created: time.Now().UTC(), State: record.StateRunning}
	if change != nil {
		change(rec)
	}
	d, err := s.enter(t.Context(), rec)
	if err == nil {
		err = os.Mkdir(d.dir.Runtime, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	return rec, d.dir
}

func (s *Store) reconcileAll(t *testing.T) repair.Report {
	t.Helper()
	r, err := s.Reconcile(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestStoreNamesAreOnes(t *testing.T) {
	s := openStore(t)
	rec, dir := s.make(t, "box", nil)
	defer dir.Close()
	_, err := s.enter(t.Context(), &record.Record{ID: "0123456789ab", Config: spec.Config{Name: "box"}, State: record.StateCreated})
	if !errors.Is(err, record.ErrNameTaken) {
		t.Fatalf("error = %v, want record.ErrNameTaken", err)
	}
	for _, ref := range []string{"box", rec.ID, rec.ID[:5]} {
		got, err := s.Find(ref)
		if err != nil || got.ID != rec.ID {
			t.Errorf("Find(%q) = %v, %v", ref, got, err)
		}
	}
	if _, err := s.Find(""); !errors.Is(err, record.ErrNotFound) {
		t.Errorf("nothing names a machine: %v", err)
	}
}

// TestR3SweepAfterAKill looks at what the sweep does once owners are gone;
// closing the lock is what the kernel does when one is killed.
func TestR3SweepAfterAKill(t *testing.T) {
	s := openStore(t)
	alive, aliveDir := s.make(t, "alive", func(r *record.Record) { r.Remove = true })
	defer aliveDir.Close()
	gone, goneDir := s.make(t, "gone", func(r *record.Record) { r.Remove = true })
	kept, keptDir := s.make(t, "kept", nil)
	half, halfDir := s.make(t, "half", nil)
	if err := os.Remove(filepath.Join(halfDir.Data, record.FileName)); err != nil {
		t.Fatal(err)
	}
	stray, cutOff := s.root.RuntimeDir("ffffffffffff"), filepath.Join(s.root.Machines(), record.GonePrefix+"ffffffffffff")
	socket := filepath.Join(s.Runtime(), "daemon.sock") // not a machine's
	if err := errors.Join(os.Mkdir(stray, 0o700), os.Mkdir(cutOff, 0o700), os.WriteFile(socket, nil, 0o600),
		os.WriteFile(filepath.Join(cutOff, "disk.raw"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, d := range []*record.Folder{goneDir, keptDir, halfDir} {
		d.Close()
	}
	s.reconcileAll(t)
	for _, path := range []string{s.root.DataDir(gone.ID), s.root.RuntimeDir(gone.ID), s.root.DataDir(half.ID), s.root.RuntimeDir(half.ID), s.root.RuntimeDir(kept.ID), stray, cutOff} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("left over: %s", path)
		}
	}
	for _, path := range []string{s.root.DataDir(alive.ID), s.root.RuntimeDir(alive.ID), s.root.DataDir(kept.ID), socket} {
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("lost: %v", err)
		}
	}
	rec, err := s.Find("kept")
	if err != nil || rec.State != record.StateExited || rec.Error != record.SupervisorKilled || rec.Finished.IsZero() {
		t.Errorf("record of the machine whose owner was killed: %+v, %v", rec, err)
	}
}

// TestR3DamagedRecordStays: what cannot be read is told of and kept.
func TestR3DamagedRecordStays(t *testing.T) {
	for _, row := range []struct{ name, content, want string }{
		{"empty", "", "JSON"},
		{"cut off", `{"schema":1,"id":`, "JSON"},
		{"of another machine", `{"schema":1,"id":"0123456789ab","config":{"name":"box"},"state":"exited"}`, "0123456789ab"},
		{"with a disk outside", `{"schema":1,"id":"ID","config":{"name":"box"},"state":"exited","disk":{"file":"../x"}}`, "not in the machine's folder"},
		{"with a folder as its disk", `{"schema":1,"id":"ID","config":{"name":"box"},"state":"exited","disk":{"file":".."}}`, "not in the machine's folder"},
		{"in no known state", `{"schema":1,"id":"ID","config":{"name":"box"},"state":"odd"}`, "odd"},
		{"of a name that is a path", `{"schema":1,"id":"ID","config":{"name":"../box"},"state":"exited"}`, "../box"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := openStore(t)
			rec, dir := s.make(t, "box", nil)
			content := strings.ReplaceAll(row.content, "ID", rec.ID)
			path := filepath.Join(dir.Data, record.FileName)
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			dir.Close()
			for _, when := range []string{"before", "after"} {
				records, damaged, err := s.Machines()
				if err != nil || len(records) != 0 || len(damaged) != 1 || !strings.Contains(damaged[0].Error(), rec.ID) {
					t.Errorf("Machines() %s reconcile = %v, %v, %v; want one damaged", when, records, damaged, err)
				}
				if when == "after" {
					break
				}
				r := s.reconcileAll(t)
				if len(r.Machines) != 1 || !strings.Contains(r.Machines[0].Detail, row.want) || !strings.Contains(r.Machines[0].Detail, path) {
					t.Errorf("findings %+v, want one with %q and the file's name", r.Machines, row.want)
				}
			}
			if got, err := os.ReadFile(path + ".damaged-1"); err != nil || string(got) != content {
				t.Errorf("the damaged record is gone or changed: %q, %v", got, err)
			}
			if id, err := s.FindID(rec.ID); err != nil || id != rec.ID {
				t.Errorf("FindID = %q, %v", id, err)
			}
			if _, err := s.FindID(rec.ID[:6]); !errors.Is(err, record.ErrNotFound) {
				t.Errorf("a part of the ID of what is damaged: %v", err)
			}
		})
	}
}

func TestStoreRemove(t *testing.T) {
	s := openStore(t)
	rec, dir := s.make(t, "box", nil)
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

// TestStoreSweepsItsOwnAlone: two data folders of a user share the runtime folder.
func TestStoreSweepsItsOwnAlone(t *testing.T) {
	dir := t.TempDir()
	runtime := filepath.Join(dir, "run")
	if err := os.Mkdir(runtime, 0o700); err != nil {
		t.Fatal(err)
	}
	var stores []*Store
	for _, name := range []string{"a", "b"} {
		s, err := Open(filepath.Join(dir, name), runtime)
		if err != nil {
			t.Fatal(err)
		}
		stores = append(stores, s)
	}
	rec, running := stores[0].make(t, "box", nil)
	defer running.Close()
	stores[1].reconcileAll(t)
	if _, err := os.Lstat(stores[0].root.RuntimeDir(rec.ID)); err != nil {
		t.Errorf("a machine of another data folder lost its runtime folder: %v", err)
	}
}

func TestStoreNeedsAPrivateFolder(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // what the test is about
		t.Fatal(err)
	}
	if _, err := Open(t.TempDir(), dir); err == nil {
		t.Error("a runtime folder that others can enter was taken")
	}
}

func TestStoreLockEndsWithItsContext(t *testing.T) {
	s := openStore(t)
	err := s.root.Exclusively(t.Context(), func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		return s.root.Exclusively(ctx, func() error { return nil })
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error = %v, want the deadline's", err)
	}
}

func TestMachinesAreNewestFirst(t *testing.T) {
	s := openStore(t)
	for name, age := range map[string]time.Duration{"old": 3 * time.Hour, "new": time.Hour, "middle": 2 * time.Hour} {
		_, dir := s.make(t, name, func(r *record.Record) { r.Created = time.Now().Add(-age) })
		dir.Close()
	}
	records, _, err := s.Machines()
	var names []string
	for _, r := range records {
		names = append(names, r.Config.Name)
	}
	if err != nil || !slices.Equal(names, []string{"new", "middle", "old"}) {
		t.Errorf("names = %q, %v", names, err)
	}
}
