package cli

import (
	"context"
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/banger-vm/banger/api"
)

// A foreground is a command, or the boot of a machine, that the user waits
// for.
type foreground struct {
	*app
	daemon  *api.Client
	reach   func(context.Context) (*api.Client, error) // the daemon, or the next one
	machine string                                     // ID, or what the user calls it; "" until it is known
	term    *terminal
	streams api.Stdio
	keys    []byte // that leave it; nil for none
	timeout time.Duration
	id      *idFile           // to be told the machine's ID
	again   api.AttachRequest // how another connection goes on

	fresh   bool // the machine goes with its start, until that has succeeded
	further bool // not the machine's main command: the machine stays when it is to end
	apart   bool // signals end this program and not the command

	events chan api.Event // from the daemon
	gate   chan struct{}  // closed when the command may have input
	left   chan struct{}  // closed when nobody waits any more

	mu      sync.Mutex
	restore func() // of the terminal; nil when it is as it was
	over    bool   // it stays so
}

// A beginning asks the daemon for a command.
type beginning func(context.Context, api.Stdio) (*api.Process, error)

// connect sets up the command's streams.
func (f *foreground) connect(tty, interactive bool, keys string) error {
	var err error
	if f.term, err = f.openTerminal(tty, interactive); err != nil {
		return err
	}
	f.streams.Out, f.streams.Err = f.out, f.err
	if interactive {
		f.streams.In = f.in
	}
	if tty && interactive && keys != "" {
		f.keys, err = parseDetachKeys(keys)
	}
	return err
}

// boot begins a start and waits for its end.
func (f *foreground) boot(ctx context.Context, begin beginning) error {
	f.expectEvents()
	return f.attend(ctx, begin)
}

func (f *foreground) expectEvents() {
	f.events = make(chan api.Event)
	start := time.Now()
	f.streams.Event = func(e api.Event) { f.told(e, start) }
	if f.verbose && f.streams.Out != nil {
		f.streams.Console = f.err
	}
}

// told shows what an event says, and passes it on to the loop of attend.
func (f *foreground) told(e api.Event, start time.Time) {
	switch {
	case e.Phase != "" && f.verbose:
		f.note("%6.3fs %s", time.Since(start).Seconds(), e.Phase)
	case e.Notice != "":
		f.note("%s", oneLine(e.Notice))
	}
	if e.Ready && f.isOpen() { // it was booted again
		return
	}
	select {
	case f.events <- e:
	case <-f.left:
		return
	}
	if e.Ready { // the output comes after it
		f.open()
	}
}

func (f *foreground) isOpen() bool {
	select {
	case <-f.gate:
		return true
	default:
		return false
	}
}

// open lets the user's keys through to a command that is there. Before, they
// are the terminal's, so that Ctrl-C interrupts a boot.
func (f *foreground) open() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.streams.In != nil && !f.over {
		var err error
		if f.restore, err = f.term.raw(); err != nil {
			f.note("warning: terminal: %v", err)
		}
	}
	close(f.gate)
}

// cook gives the terminal back.
func (f *foreground) cook() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.over = true
	if f.restore != nil {
		f.restore()
		f.restore = nil
	}
}

// attend begins a command, waits for its end and passes signals on to it
// meanwhile.
func (f *foreground) attend(ctx context.Context, begin beginning) error {
	signals := catchSignals()
	defer signals.stop()
	return f.follow(ctx, signals.ch, begin)
}

// follow is attend with the signals that come.
func (f *foreground) follow(ctx context.Context, signals <-chan os.Signal, begin beginning) error {
	f.gate, f.left = make(chan struct{}), make(chan struct{})
	defer f.cook()
	defer close(f.left)
	c := &conductor{foreground: f, ready: f.streams.Event == nil}
	if f.streams.In != nil {
		c.input, c.pressed = f.openInput()
	}
	if c.ready {
		f.open()
	}
	for rejoined := 0; ; rejoined++ {
		streams, stop := c.connected()
		var err error
		if c.p, err = begin(ctx, streams); err != nil {
			return err
		}
		// From here on signals are the command's, and its end is ours to wait for.
		ended, err := c.conduct(context.WithoutCancel(ctx), signals)
		stop()
		const enough = 10 // a daemon that ends so often will not be there the next time either
		switch {
		case !ended:
			return err
		case !c.lost() || rejoined == enough:
			return c.outcome(ctx)
		}
		if begin, err = c.rejoin(ctx); err != nil {
			return err
		}
	}
}

// A conductor is one command as it is attended.
type conductor struct {
	*foreground
	p     *api.Process
	ready bool // the command is being started
	asked int  // signals that asked for an end
	code  int  // of what made the machine end, 0 for nothing
	final bool // code is the outcome, whatever the command says
	stops sync.WaitGroup
	limit <-chan time.Time

	input   *input // nil for none
	pressed <-chan struct{}
}

// conduct returns when the command has ended, or the user has left it.
func (c *conductor) conduct(ctx context.Context, signals <-chan os.Signal) (ended bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer c.stops.Wait()
	defer cancel() // what still waits for the machine's end
	for {
		select {
		case <-c.p.Done():
			return true, nil
		case <-c.pressed:
			return false, c.leave(exitDone)
		case <-c.limit:
			c.note("the time limit of %v is over", c.timeout)
			c.code, c.final = exitTimeout, true
			c.stop(ctx)
		case e := <-c.events:
			if c.learn(ctx, e); !e.Ready {
				continue
			}
			if c.timeout > 0 {
				c.limit = time.After(c.timeout)
			}
			if err := c.id.write(c.machine); err != nil {
				return false, errors.Join(err, c.leave(exitDone))
			}
		case sig := <-signals:
			number, ok := sig.(syscall.Signal)
			switch {
			case !ok:
			case endsThings(number) && (c.apart || c.further && c.asked > 1):
				return false, c.leave(perShell + int(number))
			default:
				c.pass(ctx, number)
			}
		}
	}
}

// leave lets the command go on with nobody who attends it.
func (c *conductor) leave(code int) error {
	if err := c.p.Close(); err != nil {
		return err
	}
	c.cook() // before a word is said on the terminal
	if !c.further {
		c.note("the machine goes on: banger attach %s comes back", c.machine)
	}
	return exitWith(code)
}

// learn takes what is new of the machine.
func (c *conductor) learn(ctx context.Context, e api.Event) {
	if e.Machine != nil {
		c.machine = e.Machine.ID
		if c.asked > 0 {
			c.abort(ctx)
		}
	}
	c.ready = c.ready || e.Ready
}

// outcome is how the command ended.
func (c *conductor) outcome(ctx context.Context) error {
	exit, err := c.p.Wait()
	_, told := errors.AsType[*api.Error](err)
	switch {
	case c.final:
		return exitError(c.code)
	case c.asked > 0 && !c.ready:
		return &codedError{exitOwn, first(ctx.Err(), errors.New("interrupted"))}
	case err == nil && exit.Error == "":
		return exitWith(exit.Code)
	case c.code != 0:
		return exitError(c.code)
	case err == nil:
		return &codedError{first(exit.Code, exitOwn), errors.New(exit.Error)}
	case c.lost():
		return &lostError{c.machine, err}
	case told || c.streams.Event == nil:
		return err
	}
	// Nobody reads the output of what was started to be seen.
	return errors.Join(err, c.daemon.Stop(context.WithoutCancel(ctx), c.machine, api.StopRequest{}))
}
