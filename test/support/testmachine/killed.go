package testmachine

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/banger-vm/banger/internal/machine/ledger"
	"github.com/banger-vm/banger/internal/machine/ledger/resource"
	"github.com/banger-vm/banger/internal/machine/record"
)

// A Killed is a machine as a killed supervisor has left it.
type Killed struct {
	Root  *record.Root
	ID    string
	Dir   string       // data folder
	Owner ledger.Owner // the mark of its resources

	// Monitor is the process of the machine's monitor, or nil if the machine did
	// not run.
	Monitor *Process
	// Unrelated is a process of the user that is not the machine's. Its ID is the
	// ID that the ledger of a machine that ran lists for the supervisor.
	Unrelated *Process

	disk string // path
}

// Kill brings an unlocked machine into the given state, as if its supervisor had
// been killed in that state.
func Kill(t testing.TB, root *record.Root, id string, state record.State) *Killed {
	t.Helper()
	owner, err := ledger.NewOwner(id, root.Path())
	if err != nil {
		t.Fatal(err)
	}
	m := &Killed{Root: root, ID: id, Dir: root.DataDir(id), Owner: owner, Unrelated: StartProcess(t)}
	rec, dir, l := m.Open(t)
	defer dir.Unlock()
	m.disk = filepath.Join(m.Dir, rec.Disk.File)
	rec.State = state
	if state == record.StateRunning {
		m.addRuntime(t, l)
	}
	if err := rec.Write(m.Dir); err != nil {
		t.Fatal(err)
	}
	return m
}

// Open locks the machine and opens its record and its ledger. The caller unlocks
// dir.
func (m *Killed) Open(t testing.TB) (*record.Record, *record.Folder, *ledger.Ledger) {
	t.Helper()
	dir, err := m.Root.Lock(m.ID)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := record.Read(m.Dir)
	if err != nil {
		t.Fatal(err)
	}
	l, _, err := ledger.Open(m.Dir, m.ID, dir.LedgerRecord(rec))
	if err != nil {
		t.Fatal(err)
	}
	return rec, dir, l
}

// addRuntime gives the machine a monitor and a runtime folder. It enters them in
// the ledger, and Unrelated's ID as the supervisor's.
func (m *Killed) addRuntime(t testing.TB, l *ledger.Ledger) {
	t.Helper()
	mk := resource.Maker{Ledger: l, Owner: m.Owner}
	err := mk.Process(t.Context(), record.MonitorEntry, func(mark string) (int, error) {
		m.Monitor = StartProcess(t, mark)
		return m.Monitor.PID(), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	runtime := m.Root.RuntimeDir(m.ID)
	if err := mk.Files(t.Context(), ledger.Folder, []string{runtime}, func() error { return os.Mkdir(runtime, 0o700) }); err != nil {
		t.Fatal(err)
	}
	supervisor := l.Entries()[1]
	if supervisor.Kind != ledger.Process {
		t.Fatalf("entries %v", l.Entries())
	}
	// No process of a user starts at tick 1, so the entry is of a process that has ended.
	supervisor.Name, supervisor.PID, supervisor.Start = record.SupervisorEntry, m.Unrelated.PID(), 1
	if err := l.Note(supervisor); err != nil {
		t.Fatal(err)
	}
}

// MarkRebooted changes the ledger as if the machine's processes had been started
// before the host was booted.
func (m *Killed) MarkRebooted(t testing.TB) {
	t.Helper()
	_, dir, l := m.Open(t)
	defer dir.Unlock()
	for _, e := range l.Entries() {
		if e.Kind == ledger.Process {
			e.Boot = "00000000-0000-0000-0000-000000000000"
			if err := l.Identify(e); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// HasDisk reports whether the machine's disk still exists.
func (m *Killed) HasDisk() bool {
	_, err := os.Stat(m.disk)
	return err == nil
}
