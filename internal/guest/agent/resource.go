package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/guest"
)

// A protector sets the score of processes for the kernel's OOM killer, which ends
// the process with the highest score when the machine's memory is full. The
// memory of a tmpfs belongs to no process, so without protection the agent may
// have the highest score. The zero value leaves the scores as they are.
type protector struct {
	proc *os.Root // /proc; the image may have another file system there
}

// protectAgent excludes the agent from the OOM killer's choice and raises its
// limit of open files, which its children inherit. Both need CAP_SYS_RESOURCE,
// which process 1 of a machine has. An agent without it, as in a container that
// tests run in, works unprotected.
func protectAgent() (protector, error) {
	p, err := tryProtect()
	if errors.Is(err, fs.ErrPermission) {
		return protector{}, nil
	}
	return p, err
}

func tryProtect() (protector, error) {
	proc, err := os.OpenRoot("/proc")
	if err != nil {
		return protector{}, fmt.Errorf("protect agent: %w", err)
	}
	p := protector{proc}
	if err := p.setScore(os.Getpid(), guest.OOMScoreNever); err != nil {
		return p, fmt.Errorf("protect agent: %w", err)
	}
	// Go's runtime resets the limit in a child to the one that the agent started
	// with, unless package syscall has set it.
	limit := syscall.Rlimit{Cur: guest.MaxOpenFiles, Max: guest.MaxOpenFiles}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return p, fmt.Errorf("set limit of open files: %w", err)
	}
	return p, nil
}

// setScore sets oom_score_adj of proc(5).
func (p protector) setScore(pid, score int) error {
	f, err := p.proc.OpenFile(strconv.Itoa(pid)+"/oom_score_adj", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strconv.Itoa(score))
	return errors.Join(err, f.Close())
}

// start starts a process, which the OOM killer may end. A child inherits the
// agent's score, and so would its own children. So the process is traced, which
// stops it in exec before its first instruction, and start sets its score there.
func (p protector) start(path string, argv []string, attr *os.ProcAttr) (*os.Process, error) {
	if p.proc == nil {
		return os.StartProcess(path, argv, attr)
	}
	// The thread that starts a traced process is its tracer.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	attr.Sys.Ptrace = true
	process, err := os.StartProcess(path, argv, attr)
	traced := err == nil
	if errors.Is(err, unix.EPERM) { // perhaps the image forbids tracing, by kernel.yama.ptrace_scope=3
		attr.Sys.Ptrace = false
		process, err = os.StartProcess(path, argv, attr)
	}
	if err != nil {
		return nil, err
	}
	if traced {
		if err = awaitStop(process.Pid); err == nil {
			defer unix.PtraceDetach(process.Pid) //nolint:errcheck // SIGKILL may have ended the process
		}
	}
	if err == nil {
		err = p.setScore(process.Pid, 0)
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) { // the process may have ended
		return process, nil
	}
	err = fmt.Errorf("set score of process: %w", err)
	if killErr := process.Kill(); killErr != nil {
		return nil, errors.Join(err, killErr)
	}
	_, waitErr := process.Wait()
	return nil, errors.Join(err, waitErr)
}

// awaitStop waits until a traced process stops or ends, and does not reap it.
func awaitStop(pid int) error {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
