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
func (s *Store) make(t *testing.T, name string, change func(*Record)) (*Record, *folder) {
	t.Helper()
	id, err := newID()
	if err != nil {
		t.Fatal(err)
	}
	rec := &Record{ID: id, Config: Config{Name: name}, Created: time.Now().UTC(), State: StateRunning}
	if change != nil {
		change(rec)
	}
	d, err := s.enter(t.Context(), rec)
	if err == nil {
		err = os.Mkdir(d.dir.runtime, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	return rec, d.dir
}

func (s *Store) reconcileAll(t *testing.T) Report {
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
	defer dir.lock.Close()
	_, err := s.enter(t.Context(), &Record{ID: "0123456789ab", Config: Config{Name: "box"}, State: StateCreated})
	if !errors.Is(err, ErrNameTaken) {
		t.Fatalf("error = %v, want ErrNameTaken", err)
	}
	for _, ref := range []string{"box", rec.ID, rec.ID[:5]} {
		got, err := s.Find(ref)
		if err != nil || got.ID != rec.ID {
			t.Errorf("Find(%q) = %v, %v", ref, got, err)
		}
	}
	if _, err := s.Find(""); !errors.Is(err, ErrNotFound) {
		t.Errorf("nothing names a machine: %v", err)
	}
}

// TestR3SweepAfterAKill looks at what the sweep does once owners are gone;
// closing the lock is what the kernel does when one is killed.
func TestR3SweepAfterAKill(t *testing.T) {
	s := openStore(t)
	alive, aliveDir := s.make(t, "alive", func(r *Record) { r.Remove = true })
	defer aliveDir.lock.Close()
	gone, goneDir := s.make(t, "gone", func(r *Record) { r.Remove = true })
	kept, keptDir := s.make(t, "kept", nil)
	half, halfDir := s.make(t, "half", nil)
	if err := os.Remove(filepath.Join(halfDir.data, recordName)); err != nil {
		t.Fatal(err)
	}
	stray, cutOff := s.runtimeDir("ffffffffffff"), filepath.Join(s.data, gonePrefix+"ffffffffffff")
	socket := filepath.Join(s.Runtime(), "daemon.sock") // not a machine's
	if err := errors.Join(os.Mkdir(stray, 0o700), os.Mkdir(cutOff, 0o700), os.WriteFile(socket, nil, 0o600),
		os.WriteFile(filepath.Join(cutOff, "disk.raw"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, d := range []*folder{goneDir, keptDir, halfDir} {
		d.lock.Close()
	}
	s.reconcileAll(t)
	for _, path := range []string{s.dataDir(gone.ID), s.runtimeDir(gone.ID), s.dataDir(half.ID), s.runtimeDir(half.ID), s.runtimeDir(kept.ID), stray, cutOff} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("left over: %s", path)
		}
	}
	for _, path := range []string{s.dataDir(alive.ID), s.runtimeDir(alive.ID), s.dataDir(kept.ID), socket} {
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("lost: %v", err)
		}
	}
	rec, err := s.Find("kept")
	if err != nil || rec.State != StateExited || rec.Error != lostOwner || rec.Finished.IsZero() {
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
			path := filepath.Join(dir.data, recordName)
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			dir.lock.Close()
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
			if _, err := s.FindID(rec.ID[:6]); !errors.Is(err, ErrNotFound) {
				t.Errorf("a part of the ID of what is damaged: %v", err)
			}
		})
	}
}

func TestStoreRemove(t *testing.T) {
	s := openStore(t)
	rec, dir := s.make(t, "box", nil)
	if err := s.Remove(t.Context(), rec.ID); !errors.Is(err, ErrRunning) {
		t.Fatalf("removing a machine that runs: %v", err)
	}
	dir.lock.Close()
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
	defer running.lock.Close()
	stores[1].reconcileAll(t)
	if _, err := os.Lstat(stores[0].runtimeDir(rec.ID)); err != nil {
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
	err := s.locked(t.Context(), func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		return s.locked(ctx, func() error { return nil })
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error = %v, want the deadline's", err)
	}
}

func TestMachinesAreNewestFirst(t *testing.T) {
	s := openStore(t)
	for name, age := range map[string]time.Duration{"old": 3 * time.Hour, "new": time.Hour, "middle": 2 * time.Hour} {
		_, dir := s.make(t, name, func(r *Record) { r.Created = time.Now().Add(-age) })
		dir.lock.Close()
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
