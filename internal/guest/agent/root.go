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

// root is the state of the root file system.
type root struct {
	ready chan struct{} // closed when the root file system is in place or has failed

	mu    sync.Mutex
	err   error   // set if it has failed
	since float64 // seconds from the kernel's start until it was in place
	notes []string
}

// wait waits until the root file system is in place, and returns an error if
// that fails, closed is closed or ctx ends.
func (r *root) wait(ctx context.Context, closed <-chan struct{}) error {
	select {
	case <-r.ready:
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.err
	case <-closed:
		return errors.New("the channel was closed")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// finish records that the root file system is in place, or that it has failed
// with err. Only the first call has an effect.
func (r *root) finish(notes []string, err error) {
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

// receiveControl carries out the messages of process 1 until the connection
// ends.
func (a *agent) receiveControl(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() {
		_ = a.opts.Control.SetReadDeadline(time.Unix(1, 0)) // sockets support deadlines
	})
	defer stop()
	for {
		m, err := control.Receive(a.opts.Control)
		switch {
		case errors.Is(err, io.EOF):
			a.root.finish(nil, errors.New("process 1 ended before it mounted the root file system"))
			return
		case err != nil:
			a.root.finish(nil, err)
			return
		case m.Fatal != "":
			a.root.finish(nil, errors.New(m.Fatal))
		case m.Root:
			a.enterRoot(m.Notes)
		}
	}
}

func (a *agent) enterRoot(notes []string) {
	if err := changeRoot(a.opts.Sysroot); err != nil {
		a.root.finish(nil, err)
		return
	}
	err := control.Send(a.opts.Control, control.Message{Rooted: true})
	a.root.finish(notes, err)
}

// changeRoot makes dir the root of the whole process; all its threads share it.
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

func (r *root) finished() bool {
	select {
	case <-r.ready:
		return true
	default:
		return false
	}
}
