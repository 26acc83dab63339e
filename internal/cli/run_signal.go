package cli

import (
	"context"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/banger-vm/banger/internal/guest/client"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// stopGrace is how long a command has to end after its stop signal, as
// docker's.
const stopGrace = 10 * time.Second

// signals are those that reach banger while a machine runs in the
// foreground.
type signals struct{ ch chan os.Signal }

func catchSignals() *signals {
	s := &signals{make(chan os.Signal, 8)}
	// Whoever reads the output may go before the machine has ended: that is an
	// error of a write, and must not kill the machine's owner.
	signal.Ignore(syscall.SIGPIPE)
	signal.Notify(s.ch, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH)
	return s
}

func (s *signals) stop() {
	signal.Stop(s.ch)
	signal.Reset(syscall.SIGPIPE)
}

// conduct passes signals on to the command p until done is closed: the first
// that asks for an end goes to the command, the second stops the machine, the
// third kills it. Without a command the first stops it already. Once it is
// through, the channel gives the exit code of what made the machine end, 0
// for nothing.
func (r *running) conduct(ctx context.Context, done <-chan struct{}, p *client.Process) <-chan int {
	c := &conductor{running: r, ctx: ctx, p: p}
	if p == nil {
		c.asked = 1
	}
	forced := make(chan int, 1)
	go func() {
		var limit <-chan time.Time
		if r.timeout > 0 {
			limit = time.After(r.timeout)
		}
		for {
			select {
			case <-done:
				c.stops.Wait()
				forced <- c.code
				return
			case <-limit:
				r.app.note("the time limit of %v is over", r.timeout)
				c.end(exitTimeout)
			case sig := <-r.signals.ch:
				c.pass(sig)
			}
		}
	}()
	return forced
}

// A conductor is the state of conduct's loop.
type conductor struct {
	*running
	ctx   context.Context //nolint:containedctx // the loop's own, for as long as it runs
	p     *client.Process // nil for none
	asked int             // signals that asked for an end
	code  int             // of what made the machine end
	stops sync.WaitGroup
}

// end stops the machine beside the loop.
func (c *conductor) end(code int) {
	c.code = code
	c.stops.Go(func() {
		if err := c.machine.Stop(c.ctx, stopGrace); err != nil {
			c.app.note("stopping the machine: %v", err)
		}
	})
}

// pass handles one signal.
func (c *conductor) pass(sig os.Signal) {
	number, ok := sig.(syscall.Signal)
	if !ok {
		return
	}
	if !endsThings(number) {
		deliver(number, c.p, c.term)
		return
	}
	c.asked++
	const perShell = 128 // what a shell adds to a signal's number
	switch c.asked {
	case 1:
		deliver(number, c.p, c.term)
	case 2:
		c.app.note("stopping the machine; once more to kill it")
		c.end(perShell + int(number))
	case 3:
		if err := c.machine.Kill(); err != nil {
			c.app.note("killing the machine: %v", err)
		}
	}
}

// endsThings reports whether a signal asks for an end.
func endsThings(s syscall.Signal) bool {
	return slices.Contains([]syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT}, s)
}

// deliver passes a signal on to the command p, and a new size of the terminal.
// Nobody waits for it: a guest that takes nothing must not keep the next
// signal from its effect. It ends with the connection at the latest.
func deliver(s syscall.Signal, p *client.Process, term *terminal) {
	switch {
	case p == nil:
	case s == syscall.SIGWINCH:
		go term.resized(p)
	default:
		go p.Signal(strings.TrimPrefix(unix.SignalName(s), "SIG")) //nolint:errcheck // the command may have ended
	}
}

// A terminal is the user's, when the command is to have one. Its methods do
// nothing on nil.
type terminal struct{ file *os.File }

// openTerminal returns nil when no terminal is wanted. One that is wanted and
// read must be one, as with docker.
func (a *app) openTerminal(wanted, interactive bool) (*terminal, error) {
	if !wanted {
		return nil, nil //nolint:nilnil // no terminal, as documented
	}
	f, ok := a.in.(*os.File)
	if ok && term.IsTerminal(int(f.Fd())) {
		return &terminal{f}, nil
	}
	if interactive {
		return nil, usagef("standard input is not a terminal: leave out -t, or -i")
	}
	return &terminal{}, nil
}

// enter gives the command's streams a terminal of the size of the user's, and
// hands the user's keys through as they are. restore puts that back.
func (t *terminal) enter(streams *client.Stdio) (restore func(), err error) {
	if t == nil {
		return func() {}, nil
	}
	const columns, rows = 80, 24 // where there is no terminal to take them from
	streams.TTY = &client.TTY{Term: first(os.Getenv("TERM"), "xterm"), Rows: rows, Cols: columns}
	if t.file == nil {
		return func() {}, nil
	}
	if w, h, err := term.GetSize(int(t.file.Fd())); err == nil {
		streams.TTY.Rows, streams.TTY.Cols = h, w
	}
	if streams.In == nil {
		return func() {}, nil
	}
	state, err := term.MakeRaw(int(t.file.Fd()))
	if err != nil {
		return nil, err
	}
	return func() {
		_ = term.Restore(int(t.file.Fd()), state) // the terminal may be gone
	}, nil
}

func (t *terminal) resized(p *client.Process) {
	if t == nil || t.file == nil {
		return
	}
	if w, h, err := term.GetSize(int(t.file.Fd())); err == nil {
		_ = p.Resize(h, w) // a command that has ended needs no size
	}
}

// follow passes signals on to a further command until done is closed. The
// third that asks for an end hangs up: a command may take none.
func (s *signals) follow(done <-chan struct{}, p *client.Process, term *terminal, hangUp func()) {
	asked := 0
	for {
		select {
		case <-done:
			return
		case sig := <-s.ch:
			number, ok := sig.(syscall.Signal)
			if !ok {
				continue
			}
			if endsThings(number) {
				asked++
			}
			if asked == 3 {
				hangUp()
				return
			}
			deliver(number, p, term)
		}
	}
}
