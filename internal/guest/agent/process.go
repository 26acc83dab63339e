package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lingerWait is how long the output of children that a process left behind
// is waited for.
const lingerWait = time.Second

// killWait is how long a process whose channel was closed has from SIGHUP to
// SIGKILL.
const killWait = 5 * time.Second

// A process is one that was started for a channel.
type process struct {
	os      *os.Process
	master  *os.File   // of its terminal; nil without one
	stdin   *os.File   // what it reads from; nil for nothing, the master with a terminal
	outputs []*os.File // standard output, standard error; the master with a terminal

	mu    sync.Mutex
	ended bool // its number may be another's by now
}

// start starts a process, in a session of its own.
func (l *launch) start() (*process, error) {
	p := &process{}
	theirs, err := l.open(p)
	defer closeAll(theirs)
	if err == nil {
		p.os, err = os.StartProcess(l.path, l.argv, &os.ProcAttr{
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

// credential is nil where there is nothing to change, which needs no
// privilege.
func (acc *account) credential() *syscall.Credential {
	if os.Geteuid() != 0 && int(acc.uid) == os.Geteuid() {
		return nil
	}
	return &syscall.Credential{Uid: acc.uid, Gid: acc.gid, Groups: acc.groups}
}

// open makes the process's three files, and the agent's ends of them in p.
// It returns what it has made also when there is an error.
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

// wait waits for the process's end.
func (p *process) wait() (syscall.WaitStatus, error) {
	// Its number stays its own until it is reaped, so that a signal meanwhile cannot meet another process.
	for {
		err := unix.Waitid(unix.P_PID, p.os.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break // the next wait has the same error
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

// signal sends a signal to the process; with a terminal also to its group
// and to the group that has the terminal, as a key would.
func (p *process) signal(sig syscall.Signal) error {
	if p.master == nil {
		return p.kill(sig, p.os.Pid)
	}
	targets := []int{-p.os.Pid}
	if raw, err := p.master.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { //nolint:errcheck // a closed terminal has no group in front
			if group, err := unix.IoctlGetInt(int(fd), unix.TIOCGPGRP); err == nil && group > 1 && group != p.os.Pid {
				targets = append(targets, -group)
			}
		})
	}
	return p.kill(sig, targets...)
}

// killGroup sends a signal to the process's group.
func (p *process) killGroup(sig syscall.Signal) error { return p.kill(sig, -p.os.Pid) }

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

// hangUp ends a process when gone is closed before its time, and at once when
// ctx ends.
func (p *process) hangUp(ctx context.Context, gone, ended <-chan struct{}) {
	select {
	case <-ended:
		return
	case <-ctx.Done():
		p.killGroup(unix.SIGKILL) //nolint:errcheck // it has ended
		return
	case <-gone:
	}
	if p.master != nil {
		p.master.Close() // the kernel sends SIGHUP to the session and to the group in front
	}
	p.killGroup(unix.SIGHUP)  //nolint:errcheck // likewise
	p.killGroup(unix.SIGCONT) //nolint:errcheck // likewise; a stopped process would not see the other
	timer := time.NewTimer(killWait)
	defer timer.Stop()
	select {
	case <-ended:
		return
	case <-ctx.Done():
	case <-timer.C:
	}
	p.killGroup(unix.SIGKILL) //nolint:errcheck // likewise
}

// An output carries one output of a process to its channel.
type output struct {
	src   *os.File
	dst   io.Writer
	ended chan struct{} // closed when the process has ended
	done  chan struct{} // closed when dst has had all that it will get
}

func newOutput(src *os.File, dst io.Writer) *output {
	return &output{src: src, dst: dst, ended: make(chan struct{}), done: make(chan struct{})}
}

// settle says that the process has ended: done is closed once what it wrote
// has been carried, and what its children write within lingerWait.
func (o *output) settle() {
	close(o.ended)
	o.src.SetReadDeadline(time.Now().Add(lingerWait)) //nolint:errcheck // pipes and terminals have deadlines
}

// carry copies until nobody holds the other end any more. When dst fails, and
// when settle's time is over, it throws away what comes, so that nobody stops
// for want of a reader. It ends with ctx.
func (o *output) carry(ctx context.Context) {
	defer o.src.Close()
	stop := context.AfterFunc(ctx, func() { o.src.Close() })
	defer stop()
	buf := make([]byte, 32<<10)
	err := o.copy(o.src, buf)
	for more := true; more && errors.Is(err, unix.EIO); {
		more = o.reopens()
		err = o.copy(o.src, buf)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		o.src.SetReadDeadline(time.Time{})             //nolint:errcheck // as in settle
		o.copy(io.LimitReader(o.src, o.queued()), buf) //nolint:errcheck // the rest, or none
		o.dst = io.Discard
		close(o.done)
		o.copy(o.src, buf) //nolint:errcheck // thrown away
		return
	}
	close(o.done)
}

// reopenWait is how often a terminal is looked at that no process has open.
const reopenWait = 100 * time.Millisecond

// reopens waits a moment for a process to open its terminal again, as it can
// by /dev/tty until it ends. Were the master closed, it would be hung up.
func (o *output) reopens() bool {
	timer := time.NewTimer(reopenWait)
	defer timer.Stop()
	select {
	case <-o.ended:
		return false
	case <-timer.C:
		return true
	}
}

// queued is how many bytes can be read without waiting.
func (o *output) queued() int64 {
	raw, err := o.src.SyscallConn()
	if err != nil {
		return 0
	}
	n := 0
	raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }) //nolint:errcheck // nothing, then
	return int64(n)
}

// copy returns src's error.
func (o *output) copy(src io.Reader, buf []byte) error {
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if _, failed := o.dst.Write(buf[:n]); failed != nil {
				o.dst = io.Discard // the channel was closed
			}
		}
		if err != nil {
			return err
		}
	}
}
