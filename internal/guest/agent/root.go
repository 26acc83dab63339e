package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/guest/control"
)

// root is the state of the root file system, which commands wait for.
type root struct {
	ready chan struct{} // closed when it is there, or never will be

	mu    sync.Mutex
	err   error   // why it never will be
	since float64 // seconds from the kernel's start
	notes []string
}

// wait returns when the root file system is there. It gives up with ctx and
// with gone.
func (r *root) wait(ctx context.Context, gone <-chan struct{}) error {
	select {
	case <-r.ready:
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.err
	case <-gone:
		return errors.New("the channel was closed")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// settle says that the root is there, or why it will not be. Only the first
// call counts.
func (r *root) settle(notes []string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.ready:
		return
	default:
	}
	r.err, r.notes, r.since = err, notes, sinceBoot()
	close(r.ready)
}

// follow does what process 1 says, until it says no more.
func (a *agent) follow(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() {
		a.opts.Control.SetReadDeadline(time.Unix(1, 0)) //nolint:errcheck // a socket has deadlines
	})
	defer stop()
	for {
		m, err := control.Receive(a.opts.Control)
		switch {
		case errors.Is(err, io.EOF):
			a.root.settle(nil, errors.New("process 1 ended before the root file system was there"))
			return
		case err != nil:
			a.root.settle(nil, err)
			return
		case m.Fatal != "":
			a.root.settle(nil, errors.New(m.Fatal))
		case m.Root:
			a.enterRoot(m.Notes)
		}
	}
}

func (a *agent) enterRoot(notes []string) {
	if err := changeRoot(a.opts.Sysroot); err != nil {
		a.root.settle(nil, err)
		return
	}
	err := control.Send(a.opts.Control, control.Message{Rooted: true})
	a.root.settle(notes, err)
}

// changeRoot makes dir the root of the whole process: its threads share it.
func changeRoot(dir string) error {
	if dir == "/" {
		return nil
	}
	if err := unix.Chdir(dir); err != nil {
		return fmt.Errorf("change root to %s: %w", dir, err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("change root to %s: %w", dir, err)
	}
	return unix.Chdir("/")
}

func sinceBoot() float64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0
	}
	return time.Duration(now.Nano()).Seconds()
}

func (r *root) settled() bool {
	select {
	case <-r.ready:
		return true
	default:
		return false
	}
}
