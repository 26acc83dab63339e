package repair_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/machine/ledger"
	"github.com/banger-vm/banger/internal/machine/ledger/resource"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/repair"
	"github.com/banger-vm/banger/internal/machine/spec"
	"github.com/banger-vm/banger/test/support/testmachine"
)

// TestR3ReconcileAfterAKill checks which folders Reconcile removes after the owners
// of machines were killed. It closes their locks, as the kernel does.
func TestR3ReconcileAfterAKill(t *testing.T) {
	f := newFixture(t)
	alive, aliveDir := testmachine.Lock(t, f.root, "alive", func(r *record.Record) { r.Remove = true })
	defer aliveDir.Close()
	gone, goneDir := testmachine.Lock(t, f.root, "gone", func(r *record.Record) { r.Remove = true })
	kept, keptDir := testmachine.Lock(t, f.root, "kept", nil)
	half, halfDir := testmachine.Lock(t, f.root, "half", nil)
	if err := os.Remove(filepath.Join(halfDir.Data, record.FileName)); err != nil {
		t.Fatal(err)
	}
	stray, halfRemoved := f.root.RuntimeDir("ffffffffffff"), filepath.Join(f.root.Machines(), record.GonePrefix+"ffffffffffff")
	socket := filepath.Join(f.root.Runtime(), "daemon.sock") // is not a machine's
	if err := errors.Join(os.Mkdir(stray, 0o700), os.Mkdir(halfRemoved, 0o700), os.WriteFile(socket, nil, 0o600),
		os.WriteFile(filepath.Join(halfRemoved, "disk.raw"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, d := range []*record.Folder{goneDir, keptDir, halfDir} {
		d.Close()
	}
	f.reconcile(t)
	for _, path := range []string{f.root.DataDir(gone.ID), f.root.RuntimeDir(gone.ID), f.root.DataDir(half.ID), f.root.RuntimeDir(half.ID), f.root.RuntimeDir(kept.ID), stray, halfRemoved} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	}
	for _, path := range []string{f.root.DataDir(alive.ID), f.root.RuntimeDir(alive.ID), f.root.DataDir(kept.ID), socket} {
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("lost: %v", err)
		}
	}
	rec, err := f.root.Find("kept")
	if err != nil || rec.State != record.StateExited || rec.Error != record.SupervisorKilled || rec.Finished.IsZero() {
		t.Errorf("record of the machine whose owner was killed: %+v, %v", rec, err)
	}
}

// TestReconcileKeepsOtherDataFolders checks that Reconcile keeps the machines of
// another data folder, which has the same runtime folder.
func TestReconcileKeepsOtherDataFolders(t *testing.T) {
	data, runtimeDir := testmachine.Folders(t)
	var roots []*record.Root
	for _, suffix := range []string{"a", "b"} {
		root, err := record.OpenRoot(data+suffix, runtimeDir)
		if err != nil {
			t.Fatal(err)
		}
		roots = append(roots, root)
	}
	rec, running := testmachine.Lock(t, roots[0], "box", nil)
	defer running.Close()
	if _, err := repair.Reconcile(t.Context(), roots[1]); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(roots[0].RuntimeDir(rec.ID)); err != nil {
		t.Errorf("a machine of another data folder lost its runtime folder: %v", err)
	}
}

// TestR4Adopt checks that Reconcile does not touch a locked machine, and warns if
// the supervisor in its ledger does not run.
func TestR4Adopt(t *testing.T) {
	for _, supervised := range []bool{true, false} {
		t.Run(fmt.Sprint("supervised ", supervised), func(t *testing.T) {
			f := newFixture(t)
			rec, dir := testmachine.Lock(t, f.root, "box", nil)
			defer dir.Close()
			owner, err := dir.Owner()
			if err != nil {
				t.Fatal(err)
			}
			l, _, err := ledger.Open(dir.Data, rec.ID, dir.LedgerRecord(rec))
			if err != nil {
				t.Fatal(err)
			}
			var p *testmachine.Process
			err = resource.Maker{Ledger: l, Owner: owner}.Process(t.Context(), record.SupervisorEntry, func(mark string) (int, error) {
				p = testmachine.StartProcess(t, mark)
				return p.PID(), nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if !supervised {
				p.Kill()
			}
			before := f.files(t)
			r := f.reconcile(t)
			if !slices.Equal(r.Adopted, []string{rec.ID}) || (len(r.Machines) == 0) != supervised {
				t.Errorf("report %+v", r)
			}
			if f.files(t) != before || p.Alive(t) != supervised {
				t.Error("a locked machine was touched")
			}
		})
	}
}

// TestR4AdoptWithoutARecord checks that Reconcile reports the damaged record of a
// locked machine and does not touch the machine.
func TestR4AdoptWithoutARecord(t *testing.T) {
	for _, d := range damages {
		t.Run(d.name, func(t *testing.T) {
			f := newFixture(t)
			m := f.kill(t, "box", record.StateRunning)
			f.lock(t, m.ID)
			damage(t, filepath.Join(m.Dir, record.FileName), d.change)
			before := f.files(t)
			r := f.reconcile(t)
			if len(r.Machines) != 1 || r.Machines[0].Fixable || !strings.Contains(r.Machines[0].Detail, m.Dir) {
				t.Errorf("findings %+v", r.Machines)
			}
			if f.files(t) != before || !m.Monitor.Alive(t) {
				t.Error("a locked machine was touched")
			}
		})
	}
}

// TestReconcileAfterAReboot checks that Reconcile records the boot of the host as
// the reason for a machine's end. It must not kill the process that now has the
// monitor's ID: the monitor was a process of an earlier boot.
func TestReconcileAfterAReboot(t *testing.T) {
	f := newFixture(t)
	m := f.kill(t, "box", record.StateRunning)
	m.MarkRebooted(t)
	f.reconcile(t)
	if rec, err := f.root.Find("box"); err != nil || rec.State != record.StateExited || rec.Error != record.HostBooted {
		t.Errorf("record %+v, %v", rec, err)
	}
	if !m.Monitor.Alive(t) {
		t.Error("a process of this boot was killed for a process of an earlier boot")
	}
}

func TestReconcileRemovesTemporaries(t *testing.T) {
	f := newFixture(t)
	m := f.kill(t, "box", record.StateExited)
	temporary := filepath.Join(m.Dir, "."+record.FileName+".tmp-1")
	half := f.root.DataDir("0123456789ab") // of a writer that was killed before its first rename
	if err := errors.Join(os.WriteFile(temporary, nil, 0o600), os.Mkdir(half, 0o700),
		os.WriteFile(filepath.Join(half, "."+record.FileName+".tmp-1"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	f.reconcile(t)
	for _, path := range []string{temporary, half} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	}
}

func TestReconcileSkipsAFIFO(t *testing.T) {
	f := newFixture(t)
	m := f.kill(t, "box", record.StateExited)
	path := filepath.Join(m.Dir, record.FileName)
	if err := errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := repair.Reconcile(ctx, f.root); err != nil || !m.HasDisk() {
		t.Errorf("reconcile: %v, disk exists: %v", err, m.HasDisk())
	}
}

// TestRepairMachine repairs a machine, repairs it again, and repairs one that does
// not exist.
func TestRepairMachine(t *testing.T) {
	f := newFixture(t)
	m := f.kill(t, "box", record.StateRunning)
	for _, id := range []string{m.ID, m.ID, "ffffffffffff"} {
		if _, err := repair.Machine(t.Context(), f.root, id); err != nil {
			t.Fatal(err)
		}
	}
	if rec, err := record.Read(m.Dir); err != nil || rec.State != record.StateExited {
		t.Errorf("record %+v, %v", rec, err)
	}
}

func TestReconcileRestarts(t *testing.T) {
	now, err := resource.BootID()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		policy  spec.RestartPolicy
		state   record.State
		stopped bool
		boot    string
		want    bool
	}{
		{spec.RestartAlways, record.StateRunning, false, "", true},
		{spec.RestartUnlessStopped, record.StateRunning, false, "", true},
		{spec.RestartAlways, record.StateExited, false, now, true},
		{spec.RestartAlways, record.StateExited, true, now, false},
		{spec.RestartAlways, record.StateExited, true, "", false},
		{spec.RestartAlways, record.StateExited, true, "earlier", true},
		{spec.RestartUnlessStopped, record.StateExited, false, "earlier", true},
		{spec.RestartUnlessStopped, record.StateExited, true, "earlier", false},
		{spec.RestartOnFailure, record.StateExited, false, "earlier", false},
		{spec.RestartAlways, record.StateCreated, false, "", false},
		{spec.RestartNo, record.StateRunning, false, "", false},
		{"", record.StateRunning, false, "", false},
	} {
		t.Run(fmt.Sprintf("%s %s %v %s", row.policy, row.state, row.stopped, row.boot), func(t *testing.T) {
			f := newFixture(t)
			rec, dir := testmachine.Lock(t, f.root, "box", func(r *record.Record) {
				r.Config.Restart.Policy, r.State, r.Stopped, r.Boot = row.policy, row.state, row.stopped, row.boot
			})
			dir.Close()
			if got := slices.Contains(f.reconcile(t).Restart, rec.ID); got != row.want {
				t.Errorf("listed for a restart: %v", got)
			}
		})
	}
}

// enterNetwork moves the test into a network namespace of its own.
func enterNetwork(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("the test needs root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	runtime.LockOSThread() // the thread ends with the test, and the namespace with it
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

func hasLink(t *testing.T, name string) bool {
	t.Helper()
	err := exec.CommandContext(t.Context(), "ip", "link", "show", "dev", name).Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	}
	return err == nil
}

// TestR3TapOfAnother checks that Reconcile removes the tap of a machine, with and
// without a ledger, and keeps a tap of the same name that is not the machine's.
func TestR3TapOfAnother(t *testing.T) {
	for _, row := range []struct{ ours, ledger bool }{{true, true}, {true, false}, {false, true}, {false, false}} {
		t.Run(fmt.Sprintf("ours %v, ledger %v", row.ours, row.ledger), func(t *testing.T) {
			enterNetwork(t)
			f := newFixture(t)
			m := f.kill(t, "box", record.StateRunning)
			_, dir, l := m.Open(t)
			tap, name, err := resource.Maker{Ledger: l, Owner: m.Owner}.Tap(t.Context(), resource.TapOptions{Persist: row.ours})
			if err != nil {
				t.Fatal(err)
			}
			tap.Close() // removes the tap if it does not persist
			dir.Close()
			if !row.ours {
				out, err := exec.CommandContext(t.Context(), "ip", "tuntap", "add", "dev", name, "mode", "tap").CombinedOutput()
				if err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			if !row.ledger {
				damage(t, filepath.Join(m.Dir, ledger.FileName), nil)
				damage(t, filepath.Join(m.Dir, record.FileName), nil)
			}
			f.reconcile(t)
			if hasLink(t, name) == row.ours {
				t.Errorf("the tap exists: %v", row.ours)
			}
			if m.Monitor.Alive(t) {
				t.Error("the machine's process is alive")
			}
		})
	}
}
