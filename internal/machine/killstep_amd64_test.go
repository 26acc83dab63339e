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

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/spec"
	"github.com/banger-vm/banger/test/support/testmachine"
)

// jobVariable is set in the environment of the process that
// TestR3KilledAtEveryStep starts. Its value is the folder of the store, the image's
// disk and the disk driver, with commas between them.
const jobVariable = "BANGER_TEST_JOB"

// TestCreateRemoveProcess is the process that TestR3KilledAtEveryStep starts. It
// makes a machine and removes it.
func TestCreateRemoveProcess(t *testing.T) {
	job := os.Getenv(jobVariable)
	if job == "" {
		t.Skip("TestR3KilledAtEveryStep runs this test")
	}
	f := strings.Split(job, ",")
	dir, o := f[0], optionsFor(f[1], "box")
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

// nameCalls are the system calls that change names in a file system.
var nameCalls = []uint64{
	unix.SYS_RENAME, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_MKDIR, unix.SYS_MKDIRAT, unix.SYS_RMDIR,
	unix.SYS_UNLINK, unix.SYS_UNLINKAT, unix.SYS_LINK, unix.SYS_LINKAT,
}

// A tracee is a process whose system calls the test traces with ptrace(2). A step is
// one of nameCalls.
type tracee struct {
	pid    int
	killAt int // the step before which the process is killed; 0: none
	steps  int // the steps so far
}

// runUntil runs TestCreateRemoveProcess and kills it before the step killAt, or lets
// it succeed if killAt is 0. It returns the number of steps and the output.
func runUntil(t *testing.T, dir, job string, killAt int) (steps int, output string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCreateRemoveProcess$")
	cmd.Env = append(os.Environ(), jobVariable+"="+dir+","+job, "GOMAXPROCS=1", "GOGC=off")
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Setpgid: true}
	runtime.LockOSThread() // ptrace(2) works from the thread that started the process
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &tracee{pid: cmd.Process.Pid, killAt: killAt}
	status, err := p.trace()
	data, readErr := os.ReadFile(out.Name())
	if err := errors.Join(err, readErr, cmd.Process.Release()); err != nil {
		t.Fatal(err)
	}
	killed := status.Signaled() && status.Signal() == syscall.SIGKILL
	if killed != (killAt > 0) || !killed && status.ExitStatus() != 0 {
		t.Fatalf("killed at %d: %v, status %d: %s", killAt, killed, status.ExitStatus(), data)
	}
	return p.steps, string(data)
}

// trace runs the process to its end and returns its status.
func (p *tracee) trace() (syscall.WaitStatus, error) {
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(p.pid, &status, syscall.WALL, nil); err != nil {
		return 0, err
	}
	const options = syscall.PTRACE_O_TRACESYSGOOD | syscall.PTRACE_O_TRACECLONE | unix.PTRACE_O_EXITKILL
	if err := errors.Join(syscall.PtraceSetOptions(p.pid, options), syscall.PtraceSyscall(p.pid, 0)); err != nil {
		return 0, err
	}
	for {
		thread, err := syscall.Wait4(-p.pid, &status, syscall.WALL, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, err
		case status.Stopped():
			if err := p.resume(thread, status.StopSignal()); err != nil && !errors.Is(err, syscall.ESRCH) {
				return 0, err
			}
		case thread == p.pid:
			return status, nil
		}
	}
}

// resume continues a thread that stopped with the given signal, or kills the process
// if the thread is about to make the system call of step killAt.
func (p *tracee) resume(thread int, signal syscall.Signal) error {
	const callFlag = 0x80 // set by PTRACE_O_TRACESYSGOOD
	pass := int(signal)
	switch signal {
	case syscall.SIGTRAP | callFlag:
		pass = 0
		var regs syscall.PtraceRegs
		if err := syscall.PtraceGetRegs(thread, &regs); err != nil {
			return err
		}
		if int64(regs.Rax) == -int64(syscall.ENOSYS) && slices.Contains(nameCalls, regs.Orig_rax) { // the call begins: its result is not set yet
			if p.steps++; p.steps == p.killAt {
				return syscall.Kill(p.pid, syscall.SIGKILL)
			}
		}
	case syscall.SIGTRAP, syscall.SIGSTOP: // a thread starts
		pass = 0
	}
	return syscall.PtraceSyscall(thread, pass)
}

// TestR3KilledAtEveryStep kills the process that makes and removes a machine before
// each of its steps. After Reconcile either the whole machine exists or no file of it.
func TestR3KilledAtEveryStep(t *testing.T) {
	disk := testmachine.ImageDisk(t)
	for _, d := range []spec.Driver{spec.Shared, spec.Copy} {
		t.Run(string(d), func(t *testing.T) { killAtEachStep(t, disk+","+string(d)) })
	}
}

// killAtEachStep is TestR3KilledAtEveryStep for one image and driver.
func killAtEachStep(t *testing.T, job string) {
	newDir := func() string {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "run"), 0o700); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	steps, output := runUntil(t, newDir(), job, 0)
	if steps < 15 || !strings.Contains(output, "removed") {
		t.Fatalf("%d steps: want one or more for each file; %s", steps, output)
	}
	whole, gone := 0, 0
	for at := 1; at <= steps; at++ {
		dir := newDir()
		_, output := runUntil(t, dir, job, at)
		s, err := Open(filepath.Join(dir, "data"), filepath.Join(dir, "run"))
		if err != nil {
			t.Fatal(err)
		}
		s.mustReconcile(t)
		if r := s.mustReconcile(t); len(r.Machines) > 0 {
			t.Fatalf("killed at step %d: a second reconcile finds %+v", at, r.Machines)
		}
		records, damaged, err := s.Machines()
		if err != nil || len(damaged) > 0 || len(records) > 1 {
			t.Fatalf("killed at step %d: %v, %v, %v", at, records, damaged, err)
		}
		if len(records) == 0 {
			gone++
			if whole == 0 && strings.Contains(output, "created") {
				t.Errorf("killed at step %d: the machine was made and is lost", at)
			}
		} else {
			whole++
			s.checkWhole(t, records[0])
			if err := s.Remove(t.Context(), records[0].ID); err != nil {
				t.Fatal(err)
			}
		}
		if testmachine.CheckEmpty(t, s.root); t.Failed() {
			t.Fatalf("killed at step %d of %d", at, steps)
		}
	}
	t.Logf("%d steps: %d machines are whole, %d are gone", steps, whole, gone)
	if whole == 0 || gone < 10 {
		t.Errorf("%d machines are whole, %d are gone: want some of both", whole, gone)
	}
}

// checkWhole asserts that a machine has its record, its disk and its ledger.
func (s *Store) checkWhole(t *testing.T, rec *record.Record) {
	t.Helper()
	if rec.State != record.StateCreated || rec.Remove {
		t.Errorf("record %+v", rec)
	}
	data, err := os.ReadFile(filepath.Join(s.root.DataDir(rec.ID), rec.Disk.File))
	if err != nil || int64(len(data)) != rec.Disk.Size || bytes.Count(data, []byte{0}) == len(data) {
		t.Errorf("disk of %d bytes: %v", len(data), err)
	}
	if len(testmachine.LedgerEntries(t, s.root, rec.ID)) == 0 {
		t.Error("the disk is not in the ledger")
	}
}
