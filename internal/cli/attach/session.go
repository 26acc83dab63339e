// Package attach is the user's side of a command that runs in a machine. It
// connects the user's streams with the command, passes signals and the size of
// the terminal on, recognises the detach keys, and attaches again if the
// daemon ends before the command does. The exit code of the command becomes an
// error of package exit.
package attach

import (
	"context"
	"os"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/render"
)

// A Session is one command in a machine, or one start of a machine, that the
// user waits for. Open connects the user's streams; then one of Start, Attach
// and Run is called once.
type Session struct {
	Env    *env.Env
	Daemon *api.Client
	// Redial returns a client of the next daemon after Daemon has ended.
	Redial func(context.Context) (*api.Client, error)

	Machine string        // ID or name; "" until the daemon reports it
	Name    string        // of the machine, in messages; "" for Machine
	Timeout time.Duration // from the start of the command until the machine is stopped; 0 for none
	// OnReady, if not nil, is called with the machine's ID when the machine is
	// ready. If it returns an error, the session ends and the machine keeps running.
	OnReady func(id string) error

	RemoveOnAbort bool // a signal during the start removes the machine, and does not only kill it
	Exec          bool // the command is not the main command: its end leaves the machine running
	NoSignals     bool // a signal ends this program and does not reach the command
	Console       bool // Attach shows the console in place of the command's output

	term    *terminal
	streams api.Stdio
	keys    []byte // the detach keys; nil for none

	inTerminal bool // this program has a controlling terminal, or had one when Run was called

	events chan api.Event // from the daemon
	opened chan struct{}  // closed when the command may have input
	done   chan struct{}  // closed when the session has ended
}

// A Begin asks the daemon for a command: to start it or to attach to it.
type Begin func(context.Context, api.Stdio) (*api.Process, error)

// Open connects the user's streams with the command. With tty the command has
// a terminal. With interactive it reads the user's input, from which keys, a
// list as --detach-keys has it, leave a command with a terminal. Without Open
// the session has no streams.
func (s *Session) Open(tty, interactive bool, keys string) error {
	var err error
	if s.term, err = openTerminal(s.Env.In, tty, interactive); err != nil {
		return err
	}
	s.streams.Out, s.streams.Err = s.Env.Out, s.Env.Err
	if interactive {
		s.streams.In = s.Env.In
	}
	if tty && interactive && keys != "" {
		s.keys, err = parseDetachKeys(keys)
	}
	return err
}

// TTY returns the terminal that the command is to have: one of the size of the
// user's, or nil for none.
func (s *Session) TTY() *api.TTY { return s.term.size() }

// Start starts a machine by begin. With streams it waits for the end of the
// main command, and else until the machine is ready. With Env.Verbose it shows
// the steps of the boot, and the console too if there are streams.
func (s *Session) Start(ctx context.Context, begin Begin) error {
	s.expectEvents()
	return s.Run(ctx, begin)
}

func (s *Session) expectEvents() {
	s.events = make(chan api.Event)
	start := time.Now()
	s.streams.Event = func(e api.Event) { s.receive(e, start) }
	if s.Env.Verbose && s.streams.Out != nil {
		s.streams.Console = s.Env.Err
	}
}

// Attach attaches to the main command of a running machine and waits for its
// end.
func (s *Session) Attach(ctx context.Context) error {
	s.streams.Console = s.Env.Out
	return s.Run(ctx, func(ctx context.Context, streams api.Stdio) (*api.Process, error) {
		return s.attach(ctx, s.Machine, streams)
	})
}

func (s *Session) attach(ctx context.Context, id string, streams api.Stdio) (*api.Process, error) {
	p, err := s.Daemon.Attach(ctx, id, api.AttachRequest{Console: s.Console}, streams)
	if err == nil {
		s.term.resize(p)
	}
	return p, err
}

// Run starts a command by begin, waits for its end, and passes signals on to it
// meanwhile.
func (s *Session) Run(ctx context.Context, begin Begin) error {
	s.inTerminal = hasControllingTerminal()
	signals, stop := catchSignals()
	defer stop()
	return s.run(ctx, signals, begin)
}

// receive shows an event of the start and passes it on to the loop. It runs in
// the goroutine that reads the connection, so that the output of the command
// comes after the event that it is ready.
func (s *Session) receive(e api.Event, start time.Time) {
	switch {
	case e.Phase != "" && s.Env.Verbose:
		s.Env.Note("%6.3fs %s", time.Since(start).Seconds(), e.Phase)
	case e.Notice != "":
		s.Env.Note("%s", render.OneLine(e.Notice))
	}
	if e.Ready && s.isOpen() { // the supervisor has booted the machine again
		return
	}
	select {
	case s.events <- e:
	case <-s.done:
		return
	}
	if e.Ready {
		s.open()
	}
}

func (s *Session) isOpen() bool {
	select {
	case <-s.opened:
		return true
	default:
		return false
	}
}

// open passes the user's input on to the command from now on. Until then the
// terminal interprets the keys, so that Ctrl-C interrupts a boot.
func (s *Session) open() {
	if s.streams.In != nil {
		if err := s.term.raw(); err != nil {
			s.Env.Note("warning: terminal: %v", err)
		}
	}
	close(s.opened)
}

// run is Run with a channel of signals.
func (s *Session) run(ctx context.Context, signals <-chan os.Signal, begin Begin) error {
	s.opened, s.done = make(chan struct{}), make(chan struct{})
	defer s.term.release()
	defer close(s.done)
	l := &loop{Session: s, ready: s.streams.Event == nil}
	if s.streams.In != nil {
		l.openInput()
	}
	if l.ready {
		s.open()
	}
	for reconnects := 0; ; reconnects++ {
		streams, stop := l.connectionStreams()
		var err error
		if l.process, err = l.begin(ctx, begin, streams); err != nil {
			return err
		}
		// From here on signals are for the command, and the loop waits for its end.
		ended, err := l.wait(context.WithoutCancel(ctx), signals)
		stop()
		const limit = 10 // a daemon that ends so often will end the next time too
		switch {
		case !ended:
			return err
		case !l.lost() || reconnects == limit:
			return l.outcome(ctx)
		}
		if begin, err = l.reconnect(ctx); err != nil {
			return err
		}
	}
}
