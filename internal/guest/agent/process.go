package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// killWait is the time between SIGHUP and SIGKILL for a process whose channel
// was closed.
const killWait = 5 * time.Second

// A process is a process that the agent started for a channel.
type process struct {
	os      *os.Process
	master  *os.File   // master of its terminal; nil without one
	stdin   *os.File   // write end of its input; nil without input, the master with a terminal
	outputs []*os.File // read ends of standard output and standard error; the master with a terminal

	mu    sync.Mutex
	ended bool // the process is reaped, and another may have its number
}

// start starts the process, in a session of its own.
func (l *launch) start(protect protector) (*process, error) {
	p := &process{}
	theirs, err := l.open(p)
	defer closeAll(theirs)
	if err == nil {
		p.os, err = protect.start(l.path, l.argv, &os.ProcAttr{
			Dir: l.dir, Env: l.env, Files: theirs,
			Sys: &syscall.SysProcAttr{Setsid: true, Setctty: l.tty != nil, Credential: l.account.credential()},
		})
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// credential returns nil if the process runs as the agent's own user, because
// setting credentials needs privilege.
func (acc *account) credential() *syscall.Credential {
	if os.Geteuid() != 0 && int(acc.uid) == os.Geteuid() {
		return nil
	}
	return &syscall.Credential{Uid: acc.uid, Gid: acc.gid, Groups: acc.groups}
}

// open creates the process's three files and stores the agent's ends in p. If
// it fails, it returns the files that it has created.
func (l *launch) open(p *process) (theirs []*os.File, err error) {
	if l.tty != nil {
		master, peer, err := openPTY(l.tty, l.account.uid)
		if err != nil {
			return nil, err
		}
		p.master, p.outputs = master, []*os.File{master}
		if l.stdin {
			p.stdin = master
		}
		return []*os.File{peer, peer, peer}, nil
	}
	in, err := os.Open(os.DevNull)
	if l.stdin {
		in, p.stdin, err = os.Pipe()
	}
	if err != nil {
		return nil, fmt.Errorf("open standard input: %w", err)
	}
	theirs = append(theirs, in)
	for range 2 {
		r, w, err := os.Pipe()
		if err != nil {
			return theirs, fmt.Errorf("open output: %w", err)
		}
		theirs, p.outputs = append(theirs, w), append(p.outputs, r)
	}
	return theirs, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// close closes the agent's ends.
func (p *process) close() {
	if p.stdin != nil {
		p.stdin.Close()
	}
	closeAll(p.outputs)
}

// wait waits for the process to end and reaps it.
func (p *process) wait() (syscall.WaitStatus, error) {
	// The process is reaped only under the lock, so that kill cannot hit
	// another process that reuses the number.
	for {
		err := unix.Waitid(unix.P_PID, p.os.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break // os.Process.Wait returns the same error
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	state, err := p.os.Wait()
	if err != nil {
		return 0, fmt.Errorf("wait for process: %w", err)
	}
	status, ok := state.Sys().(syscall.WaitStatus)
	if !ok {
		return 0, fmt.Errorf("wait for process: no status but %v", state)
	}
	return status, nil
}

// signal sends a signal to the process. If the process has a terminal, its
// group and the terminal's foreground group get the signal too, as with Ctrl-C.
func (p *process) signal(sig syscall.Signal) error {
	if p.master == nil {
		return p.kill(sig, p.os.Pid)
	}
	targets := []int{-p.os.Pid}
	// A terminal that is closed has no foreground group.
	if raw, err := p.master.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			if group, err := unix.IoctlGetInt(int(fd), unix.TIOCGPGRP); err == nil && group > 1 && group != p.os.Pid {
				targets = append(targets, -group)
			}
		})
	}
	return p.kill(sig, targets...)
}

// killGroup sends a signal to the process's group. It ignores errors, because
// the process may have ended.
func (p *process) killGroup(sig syscall.Signal) { _ = p.kill(sig, -p.os.Pid) }

func (p *process) kill(sig syscall.Signal, targets ...int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return os.ErrProcessDone
	}
	for _, target := range targets {
		if err := unix.Kill(target, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("send signal: %w", err)
		}
	}
	return nil
}

// resize sets the terminal's size.
func (p *process) resize(rows, cols uint32) error {
	if p.master == nil {
		return errors.New("the process has no terminal")
	}
	raw, err := p.master.SyscallConn()
	if err != nil {
		return fmt.Errorf("set terminal size: %w", err)
	}
	return errors.Join(raw.Control(func(fd uintptr) { err = setSize(int(fd), rows, cols) }), err)
}

// endOnClose ends a process if closed is closed before the process has ended.
// It kills the process at once if ctx ends.
func (p *process) endOnClose(ctx context.Context, closed, ended <-chan struct{}) {
	select {
	case <-ended:
		return
	case <-ctx.Done():
		p.killGroup(unix.SIGKILL)
		return
	case <-closed:
	}
	if p.master != nil {
		p.master.Close() // the kernel sends SIGHUP to the session's leader and to the foreground group
	}
	p.killGroup(unix.SIGHUP)
	// A stopped process handles SIGHUP only after SIGCONT.
	p.killGroup(unix.SIGCONT)
	timer := time.NewTimer(killWait)
	defer timer.Stop()
	select {
	case <-ended:
		return
	case <-ctx.Done():
	case <-timer.C:
	}
	p.killGroup(unix.SIGKILL)
}
