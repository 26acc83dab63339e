package machine

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/spec"
	"golang.org/x/sys/unix"
)

// stepsVariable makes TestLife the process that is killed: its value is the
// folder of the store, the image's disk and the driver.
const stepsVariable = "BANGER_TEST_LIFE"

// TestLife makes a machine and removes it.
func TestLife(t *testing.T) {
	job := os.Getenv(stepsVariable)
	if job == "" {
		t.Skip("it is run by TestR3KilledAtEveryStep")
	}
	f := strings.Split(job, ",")
	dir, o := f[0], imageOptions(f[1], "box")
	if spec.Driver(f[2]) != spec.Shared {
		o.ReadOnly, o.DiskDriver = false, spec.Driver(f[2])
	}
	s, err := Open(filepath.Join(dir, "data"), filepath.Join(dir, "run"))
	if err != nil {
		t.Fatal(err)
	}
	rec := s.mustCreate(t, o)
	fmt.Fprintln(os.Stdout, "created")
	if err := s.Remove(t.Context(), rec.ID); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(os.Stdout, "removed")
}

// changing are the system calls that change names on a file system.
var changing = []uint64{
	unix.SYS_RENAME, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_MKDIR, unix.SYS_MKDIRAT, unix.SYS_RMDIR,
	unix.SYS_UNLINK, unix.SYS_UNLINKAT, unix.SYS_LINK, unix.SYS_LINKAT,
}

// A tracee is a process that is traced through its system calls.
type tracee struct {
	pid   int
	at    int // the step before which it is killed; 0 for none
	steps int // that it has come to
}

// liveUpTo runs TestLife up to a step, and says how many it came to and what it
// said. One that is not killed must succeed.
func liveUpTo(t *testing.T, dir, job string, at int) (steps int, said string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLife$")
	cmd.Env = append(os.Environ(), stepsVariable+"="+dir+","+job, "GOMAXPROCS=1", "GOGC=off")
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Setpgid: true}
	runtime.LockOSThread() // a process is traced by one thread
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	l := &tracee{pid: cmd.Process.Pid, at: at}
	status, err := l.trace()
	data, readErr := os.ReadFile(out.Name())
	if err := errors.Join(err, readErr, cmd.Process.Release()); err != nil {
		t.Fatal(err)
	}
	killed := status.Signaled() && status.Signal() == syscall.SIGKILL
	if killed != (at > 0) || !killed && status.ExitStatus() != 0 {
		t.Fatalf("killed at %d: %v, status %d: %s", at, killed, status.ExitStatus(), data)
	}
	return l.steps, string(data)
}

func (l *tracee) trace() (syscall.WaitStatus, error) {
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(l.pid, &status, syscall.WALL, nil); err != nil {
		return 0, err
	}
	const options = syscall.PTRACE_O_TRACESYSGOOD | syscall.PTRACE_O_TRACECLONE | unix.PTRACE_O_EXITKILL
	if err := errors.Join(syscall.PtraceSetOptions(l.pid, options), syscall.PtraceSyscall(l.pid, 0)); err != nil {
		return 0, err
	}
	for {
		thread, err := syscall.Wait4(-l.pid, &status, syscall.WALL, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, err
		case status.Stopped():
			if err := l.stopped(thread, status.StopSignal()); err != nil && !errors.Is(err, syscall.ESRCH) {
				return 0, err
			}
		case thread == l.pid:
			return status, nil
		}
	}
}

// stopped lets a thread go on.
func (l *tracee) stopped(thread int, signal syscall.Signal) error {
	const ofCall = 0x80 // PTRACE_O_TRACESYSGOOD
	pass := int(signal)
	switch signal {
	case syscall.SIGTRAP | ofCall:
		pass = 0
		var regs syscall.PtraceRegs
		if err := syscall.PtraceGetRegs(thread, &regs); err != nil {
			return err
		}
		if int64(regs.Rax) == -int64(syscall.ENOSYS) && slices.Contains(changing, regs.Orig_rax) { // before the call
			if l.steps++; l.steps == l.at {
				return syscall.Kill(l.pid, syscall.SIGKILL)
			}
		}
	case syscall.SIGTRAP, syscall.SIGSTOP: // a thread begins
		pass = 0
	}
	return syscall.PtraceSyscall(thread, pass)
}

// TestR3KilledAtEveryStep pins that wherever the making or the removal of a
// machine is killed, either the whole machine is there after a reconcile or
// nothing of it.
func TestR3KilledAtEveryStep(t *testing.T) {
	disk := options(t, "").DiskPath
	for _, d := range []spec.Driver{spec.Shared, spec.Copy} {
		t.Run(string(d), func(t *testing.T) { killEverywhere(t, disk+","+string(d)) })
	}
}

func killEverywhere(t *testing.T, job string) {
	newDir := func() string {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "run"), 0o700); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	steps, said := liveUpTo(t, newDir(), job, 0)
	if steps < 15 || !strings.Contains(said, "removed") {
		t.Fatalf("%d steps: want one or more for each file; %s", steps, said)
	}
	whole, gone := 0, 0
	for at := 1; at <= steps; at++ {
		dir := newDir()
		_, said := liveUpTo(t, dir, job, at)
		s, err := Open(filepath.Join(dir, "data"), filepath.Join(dir, "run"))
		if err != nil {
			t.Fatal(err)
		}
		s.reconcileAll(t)
		if r := s.reconcileAll(t); len(r.Machines) > 0 {
			t.Fatalf("killed at step %d: a second reconcile finds %+v", at, r.Machines)
		}
		records, damaged, err := s.Machines()
		if err != nil || len(damaged) > 0 || len(records) > 1 {
			t.Fatalf("killed at step %d: %v, %v, %v", at, records, damaged, err)
		}
		if len(records) == 0 {
			gone++
			if whole == 0 && strings.Contains(said, "created") {
				t.Errorf("killed at step %d: the machine was made, and is lost", at)
			}
		} else {
			whole++
			s.isWhole(t, records[0])
			if err := s.Remove(t.Context(), records[0].ID); err != nil {
				t.Fatal(err)
			}
		}
		if s.empty(t); t.Failed() {
			t.Fatalf("killed at step %d of %d", at, steps)
		}
	}
	t.Logf("%d steps: %d machines are whole, %d gone", steps, whole, gone)
	if whole == 0 || gone < 10 {
		t.Errorf("%d machines are whole, %d gone: want some of both", whole, gone)
	}
}

// isWhole asserts that a machine that was made has all that it had.
func (s *Store) isWhole(t *testing.T, rec *record.Record) {
	t.Helper()
	if rec.State != record.StateCreated || rec.Remove {
		t.Errorf("record %+v", rec)
	}
	data, err := os.ReadFile(filepath.Join(s.root.DataDir(rec.ID), rec.Disk.File))
	if err != nil || int64(len(data)) != rec.Disk.Size || bytes.Count(data, []byte{0}) == len(data) {
		t.Errorf("disk of %d bytes: %v", len(data), err)
	}
	if len(s.noted(t, rec.ID)) == 0 {
		t.Error("the disk is not in the ledger")
	}
}
