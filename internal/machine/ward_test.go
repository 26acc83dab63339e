package machine

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/banger-vm/banger/internal/machine/ledger"
	"github.com/banger-vm/banger/internal/machine/ledger/resource"
	"github.com/banger-vm/banger/internal/machine/record"
)

// A sleeper is a process of the test's that stands for another.
type sleeper struct {
	cmd   *exec.Cmd
	ended chan error
}

func startSleeper(t *testing.T, env ...string) *sleeper {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sleep", "1000")
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &sleeper{cmd, make(chan error, 1)}
	go func() { p.ended <- cmd.Wait() }()
	t.Cleanup(func() { cmd.Process.Kill() })
	return p
}

// lives reports whether the process was spared. It is asked once what could
// have killed it has returned, which waits for the ends of what it kills.
func (p *sleeper) lives(t *testing.T) bool {
	t.Helper()
	data, err := os.ReadFile("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/stat")
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	rest := data[bytes.LastIndexByte(data, ')')+2:]
	return rest[0] != 'Z' && rest[0] != 'X'
}

// A ward is a machine as a killed supervisor left it.
type ward struct {
	s     *Store
	rec   *record.Record
	dir   string
	owner ledger.Owner
	vmm   *sleeper // of the machine; nil where it was at rest
	other *sleeper // has the number that the ledger has for another role
}

// leave makes a machine with a disk, in a state, and lets it go.
func leave(t *testing.T, s *Store, state record.State) *ward {
	t.Helper()
	return leaveOf(t, s, options(t, "box"), state)
}

func leaveOf(t *testing.T, s *Store, o Options, state record.State) *ward {
	t.Helper()
	rec := s.mustCreate(t, o)
	owner, err := ledger.NewOwner(rec.ID, s.root.Path())
	if err != nil {
		t.Fatal(err)
	}
	w := &ward{s: s, rec: rec, dir: s.root.DataDir(rec.ID), owner: owner, other: startSleeper(t)}
	dir, err := s.root.Lock(rec.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if rec, err = record.Read(dir.Data); err != nil {
		t.Fatal(err)
	}
	rec.State = state
	l, _, err := ledger.Open(dir.Data, rec.ID, dir.LedgerRecord(rec))
	if err != nil {
		t.Fatal(err)
	}
	if state == record.StateRunning {
		w.run(t, l)
	}
	if err := rec.Write(dir.Data); err != nil {
		t.Fatal(err)
	}
	return w
}

// run gives the machine a process, a socket, and an entry with the number of
// a process that is not the machine's.
func (w *ward) run(t *testing.T, l *ledger.Ledger) {
	t.Helper()
	mk := resource.Maker{Ledger: l, Owner: w.owner}
	err := mk.Process(t.Context(), "vmm", func(mark string) (int, error) {
		w.vmm = startSleeper(t, mark)
		return w.vmm.cmd.Process.Pid, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	runtimeDir := w.s.root.RuntimeDir(w.rec.ID)
	if err := mk.Files(t.Context(), ledger.Folder, []string{runtimeDir}, func() error { return os.Mkdir(runtimeDir, 0o700) }); err != nil {
		t.Fatal(err)
	}
	stranger := l.Entries()[1]
	if stranger.Kind != ledger.Process {
		t.Fatalf("entries %v", l.Entries())
	}
	stranger.Name, stranger.PID, stranger.Start = record.SupervisorEntry, w.other.cmd.Process.Pid, 1 // no process of a user started so early
	if err := l.Note(stranger); err != nil {
		t.Fatal(err)
	}
}

func (w *ward) hasDisk() bool {
	_, err := os.Stat(filepath.Join(w.dir, w.rec.Disk.File))
	return err == nil
}
