package cli

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/banger-vm/banger/api"
	"golang.org/x/sys/unix"
)

// stopGrace is how long a command has to end after its stop signal, as
// docker's.
const stopGrace = 10 * time.Second

// signals are those that reach banger while a command runs in the foreground.
type signals struct{ ch chan os.Signal }

func catchSignals() *signals {
	s := &signals{make(chan os.Signal, 8)}
	// Whoever reads the output may go before the command has ended: that is an
	// error of a write, after which the machine is stopped.
	signal.Ignore(syscall.SIGPIPE)
	signal.Notify(s.ch, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH)
	return s
}

func (s *signals) stop() {
	signal.Stop(s.ch)
	signal.Reset(syscall.SIGPIPE)
}

// pass handles one signal: the first that asks for an end goes to the
// command, the second stops the machine, the third kills it; a further command
// gets them all. One that comes before there is a command ends the boot.
func (c *conductor) pass(ctx context.Context, number syscall.Signal) {
	if !endsThings(number) {
		if c.ready {
			c.deliver(number)
		}
		return
	}
	c.asked++
	switch {
	case !c.ready:
		c.abort(ctx)
	case c.further || c.asked == 1:
		c.deliver(number)
	case c.asked == 2:
		c.note("stopping the machine; once more to kill it")
		c.code = perShell + int(number)
		c.stop(ctx)
	case c.asked == 3:
		c.final = true
		c.kill(ctx)
	}
}

// abort, stop and kill end the machine beside the loop.
func (c *conductor) abort(ctx context.Context) {
	switch {
	case !c.fresh:
		c.kill(ctx)
	case c.machine != "": // else learn does it
		// A machine that comes up at this moment would stay.
		ctx = context.WithoutCancel(ctx)
		c.beside(ctx, "removing", func() error {
			return errors.Join(c.p.Close(), c.daemon.Remove(ctx, c.machine, true))
		})
	}
}

func (c *conductor) stop(ctx context.Context) {
	c.beside(ctx, "stopping", func() error { return c.daemon.Stop(ctx, c.machine, api.StopRequest{}) })
}

func (c *conductor) kill(ctx context.Context) {
	c.beside(ctx, "killing", func() error { return c.daemon.Kill(ctx, c.machine, api.KillRequest{}) })
}

func (c *conductor) beside(ctx context.Context, what string, do func() error) {
	c.stops.Go(func() {
		// One that has ended meanwhile is as it should be.
		if err := do(); err != nil && ctx.Err() == nil && !hasEnded(err) {
			c.note("%s the machine: %v", what, err)
		}
	})
}

// endsThings reports whether a signal asks for an end.
func endsThings(s syscall.Signal) bool {
	return slices.Contains([]syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT}, s)
}

// deliver passes a signal on to the command, and a new size of the terminal.
// Nobody waits for it: a guest that takes nothing must not keep the next
// signal from its effect. It ends with the connection at the latest.
func (c *conductor) deliver(s syscall.Signal) {
	if s == syscall.SIGWINCH {
		go c.term.resized(c.p)
		return
	}
	go c.p.Signal(strings.TrimPrefix(unix.SignalName(s), "SIG")) //nolint:errcheck // the command may have ended
}
