package attach

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/exit"
)

// TestSession checks the exit code and the output of a run, for each course that
// it can take.
func TestSession(t *testing.T) {
	for _, row := range []struct {
		name    string
		serve   func(*fakeDaemon)
		signals string // words; a SIGINT follows each word that standard error contains
		in      io.Reader
		keys    string
		timeout time.Duration
		started bool // a start of a machine that existed before
		code    int
		out     string
		err     string // part of standard error
		lost    bool   // the error is a LostError
	}{
		{name: "outputs and exit code", code: 7, out: "to out\n", err: "to err\n", serve: func(s *fakeDaemon) {
			s.ready()
			s.write(frames.Stdout, "to out\n")
			s.write(frames.Stderr, "to err\n")
			s.send(frames.Exit, api.Exit{Code: 7})
		}},
		{name: "booted again", out: "once\nagain\n", serve: func(s *fakeDaemon) {
			s.ready()
			s.write(frames.Stdout, "once\n")
			s.send(frames.Event, api.Event{Ready: true})
			s.write(frames.Stdout, "again\n")
			s.send(frames.Exit, api.Exit{})
		}},
		{name: "the daemon is killed during a boot", code: 125, err: "connection to the daemon lost", serve: func(*fakeDaemon) {}},
		{name: "notices", err: "no KVM here", serve: func(s *fakeDaemon) {
			s.send(frames.Event, api.Event{Notice: "no KVM here"})
			s.ready()
			s.send(frames.Exit, api.Exit{})
		}},
		{name: "input waits for the command", in: strings.NewReader("typed"), out: "typed", serve: func(s *fakeDaemon) {
			s.ready()
			s.write(frames.Stdout, s.next(frames.Stdin))
			s.next(frames.CloseStdin)
			s.send(frames.Exit, api.Exit{})
		}},
		{name: "the first signal goes to the command", signals: "up", code: 42, serve: func(s *fakeDaemon) {
			s.ready()
			s.write(frames.Stderr, "up")
			if got := s.next(frames.Signal); got != "INT" {
				s.t.Errorf("signal %s, want INT", got)
			}
			s.send(frames.Exit, api.Exit{Code: 42})
		}},
		{name: "the second stops the machine", signals: "up one", code: 9, err: "once more to kill it", serve: func(s *fakeDaemon) {
			s.signalledTwice()
			s.send(frames.Exit, api.Exit{Code: 9})
		}},
		{name: "a machine that fails while it stops", signals: "up one", code: 130, serve: func(s *fakeDaemon) {
			s.signalledTwice()
			s.send(frames.Exit, api.Exit{Code: 125, Error: "machine ended: without a word"})
		}},
		{name: "the third kills it", signals: "up one two", code: 130, serve: func(s *fakeDaemon) {
			s.signalledTwice()
			s.write(frames.Stderr, "two")
			s.wantRequest("kill 0123456789ab")
			s.send(frames.Exit, api.Exit{Code: 137, Error: "killed"})
		}},
		{name: "a signal during the boot removes the machine", signals: "booting", code: 125, err: "interrupted", serve: func(s *fakeDaemon) {
			s.send(frames.Event, api.Event{Machine: &api.Machine{ID: "0123456789ab"}})
			s.send(frames.Event, api.Event{Notice: "booting"})
			s.removed()
		}},
		{name: "a signal before the ID is known", signals: "booting", code: 125, err: "interrupted", serve: func(s *fakeDaemon) {
			s.send(frames.Event, api.Event{Notice: "booting"})
			s.send(frames.Event, api.Event{Machine: &api.Machine{ID: "0123456789ab"}})
			s.removed()
		}},
		{name: "a signal during the boot of an old machine kills it", started: true, signals: "booting", code: 125, err: "interrupted", serve: func(s *fakeDaemon) {
			s.send(frames.Event, api.Event{Notice: "booting"})
			s.wantRequest("kill 0123456789ab")
			s.send(frames.Error, &api.Error{Code: api.CodeFailed, Message: "machine ended: killed"})
		}},
		{name: "the time limit", timeout: time.Millisecond, code: 124, err: "time limit of 1ms", serve: func(s *fakeDaemon) {
			s.ready()
			s.wantRequest("stop 0123456789ab")
			s.send(frames.Exit, api.Exit{Code: 143})
		}},
		{name: "detached", in: strings.NewReader("ab\x10\x11"), keys: "\x10\x11", err: "banger attach box comes back", serve: func(s *fakeDaemon) {
			s.ready()
			if got := s.next(frames.Stdin); got != "ab" {
				s.t.Errorf("input %q", got)
			}
			if f, err := s.conn.Next(); err == nil {
				s.t.Errorf("frame %d %q after the keys", f.Kind, f.Payload)
			}
		}},
		{name: "the machine fails", code: 125, err: "machine ended: kernel panic", serve: func(s *fakeDaemon) {
			s.ready()
			s.send(frames.Exit, api.Exit{Code: 125, Error: "machine ended: kernel panic"})
		}},
		{name: "the command cannot be run", code: 127, err: "nope: no such file", serve: func(s *fakeDaemon) {
			s.ready()
			s.send(frames.Error, &api.Error{Code: api.CodeNoCommand, Message: "nope: no such file", ExitCode: 127})
		}},
		{name: "the request is invalid", code: 2, err: "memory", serve: func(s *fakeDaemon) {
			s.send(frames.Error, &api.Error{Code: api.CodeInvalid, Message: "memory of 1 MiB"})
		}},
		{name: "the daemon ends", in: strings.NewReader("typed"), code: 6, out: "one two", err: "attached to the machine again", serve: func(s *fakeDaemon) {
			if s.connections == 1 {
				s.ready()
				s.next(frames.Stdin)
				s.next(frames.CloseStdin)
				s.write(frames.Stdout, "one ")
				return
			}
			s.write(frames.Stdout, "two")
			s.send(frames.Exit, api.Exit{Code: 6})
		}},
		{name: "the machine ends without a daemon", code: 4, serve: func(s *fakeDaemon) {
			s.machine.State, s.machine.ExitCode = api.StateExited, 4
			s.ready()
		}},
		{name: "the machine fails without a daemon", code: 125, err: "its supervisor was killed", serve: func(s *fakeDaemon) {
			s.machine.State, s.machine.ExitCode, s.machine.Error = api.StateExited, 125, "its supervisor was killed"
			s.ready()
		}},
		{name: "every daemon ends", code: 125, lost: true, serve: func(s *fakeDaemon) {
			if s.connections == 1 {
				s.ready()
			}
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, daemon := newDaemon(t, row.serve)
			out, errs := new(screen), new(screen)
			signals := make(chan os.Signal)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			session := &Session{Env: &env.Env{Out: out, Err: errs}, Daemon: daemon, Timeout: row.timeout, keys: []byte(row.keys)}
			session.Redial = func(context.Context) (*api.Client, error) { return daemon, nil }
			if session.RemoveOnAbort = !row.started; row.started {
				session.Machine = "0123456789ab"
			}
			if row.keys == "" {
				session.keys = nil
			}
			session.streams = api.Stdio{In: row.in, Out: out, Err: errs}
			session.expectEvents()
			go func() {
				for text := range strings.FieldsSeq(row.signals) {
					<-errs.shows(text)
					signals <- syscall.SIGINT
				}
			}()
			err := exit.OfCommand(session.run(ctx, signals, func(ctx context.Context, streams api.Stdio) (*api.Process, error) {
				return daemon.Run(ctx, api.RunRequest{Start: api.StartRequest{Attach: true}}, streams)
			}))
			if err != nil {
				fmt.Fprintln(errs, err)
			}
			if lost, ok := errors.AsType[*LostError](err); ok != row.lost || ok && lost.Machine != "box" {
				t.Errorf("error %v, want that of a lost connection: %v", err, row.lost)
			}
			code := exit.Code(err)
			if code != row.code || out.String() != row.out || !strings.Contains(errs.String(), row.err) {
				t.Errorf("code %d, want %d; standard output %q, want %q; standard error %q, want %q in it", code, row.code, out, row.out, errs, row.err)
			}
		})
	}
}

// closedPipe is an output stream whose reader has gone.
type closedPipe struct{}

func (closedPipe) Write([]byte) (int, error) { return 0, syscall.EPIPE }

// TestStartBrokenOutput checks that a write error stops the machine of a run.
func TestStartBrokenOutput(t *testing.T) {
	s, daemon := newDaemon(t, func(s *fakeDaemon) {
		s.ready()
		s.write(frames.Stdout, "unread")
		if f, err := s.conn.Next(); err == nil {
			s.t.Errorf("frame %d", f.Kind)
		}
	})
	session := &Session{Env: &env.Env{Err: io.Discard}, Daemon: daemon}
	session.streams.Out = closedPipe{}
	session.expectEvents()
	err := session.run(t.Context(), nil, func(ctx context.Context, streams api.Stdio) (*api.Process, error) {
		return daemon.Run(ctx, api.RunRequest{Start: api.StartRequest{Attach: true}}, streams)
	})
	if !errors.Is(err, syscall.EPIPE) {
		t.Errorf("error %v, want that of the output", err)
	}
	s.wantRequest("stop 0123456789ab")
}

// TestAttachBrokenOutput checks that a write error does not stop a machine that
// another command has started.
func TestAttachBrokenOutput(t *testing.T) {
	s, daemon := newDaemon(t, func(s *fakeDaemon) {
		s.write(frames.Stdout, "unread")
		if f, err := s.conn.Next(); err == nil {
			s.t.Errorf("frame %d", f.Kind)
		}
	})
	session := &Session{Env: &env.Env{Err: io.Discard}, Daemon: daemon, Machine: "0123456789ab"}
	session.streams.Out = closedPipe{}
	err := session.run(t.Context(), nil, func(ctx context.Context, streams api.Stdio) (*api.Process, error) {
		return daemon.Attach(ctx, session.Machine, api.AttachRequest{}, streams)
	})
	if !errors.Is(err, syscall.EPIPE) {
		t.Errorf("error %v, want that of the output", err)
	}
	select {
	case request := <-s.requests:
		t.Errorf("request %q", request)
	default:
	}
}

// TestOnReady checks that OnReady gets the ID of a machine that is ready, and is not
// called if the start fails.
func TestOnReady(t *testing.T) {
	for _, row := range []struct {
		name  string
		serve func(*fakeDaemon)
		want  []string
	}{
		{"a start that fails", func(s *fakeDaemon) {
			s.send(frames.Event, api.Event{Machine: &api.Machine{ID: "0123456789ab"}})
			s.send(frames.Error, &api.Error{Code: api.CodeFailed, Message: "no"})
		}, nil},
		{"a start", func(s *fakeDaemon) {
			s.ready()
			s.send(frames.Exit, api.Exit{})
		}, []string{"0123456789ab"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, daemon := newDaemon(t, row.serve)
			var got []string
			session := &Session{Env: &env.Env{Out: io.Discard, Err: io.Discard}, Daemon: daemon}
			session.OnReady = func(id string) error {
				got = append(got, id)
				return nil
			}
			session.expectEvents()
			err := session.run(t.Context(), nil, func(ctx context.Context, streams api.Stdio) (*api.Process, error) {
				return daemon.Run(ctx, api.RunRequest{Start: api.StartRequest{Attach: true}}, streams)
			})
			if (err == nil) != (row.want != nil) || !slices.Equal(got, row.want) {
				t.Errorf("OnReady got %q, want %q; error %v", got, row.want, err)
			}
		})
	}
}

// TestExecFate checks that the error of an exec whose connection is lost names the
// fate of its command.
func TestExecFate(t *testing.T) {
	for want, machine := range map[string]api.Machine{
		"has hung up the command":      {ID: "0123456789ab", State: api.StateRunning},
		"has ended (kernel panic)":     {ID: "0123456789ab", State: api.StateExited, ExitCode: 125, Error: "kernel panic"},
		"has ended (exit code 4), and": {ID: "0123456789ab", State: api.StateExited, ExitCode: 4},
	} {
		d, daemon := newDaemon(t, func(*fakeDaemon) {})
		d.machine = machine
		s := &Session{Env: &env.Env{Err: io.Discard}, Daemon: daemon, Machine: "0123456789ab", Exec: true}
		s.Redial = func(context.Context) (*api.Client, error) { return daemon, nil }
		err := s.run(t.Context(), nil, func(ctx context.Context, streams api.Stdio) (*api.Process, error) {
			return daemon.Attach(ctx, s.Machine, api.AttachRequest{}, streams)
		})
		if !errors.Is(err, api.ErrLost) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}

// TestBeginAgain checks that an attach is asked of the next daemon if the first one
// ends before it answers, and that a run is not.
func TestBeginAgain(t *testing.T) {
	_, daemon := newDaemon(t, func(s *fakeDaemon) { s.send(frames.Exit, api.Exit{Code: 3}) })
	ending := &api.Error{Code: api.CodeEnding, Message: "the daemon is about to end"}
	for _, isRun := range []bool{false, true} {
		s := &Session{Env: &env.Env{Err: io.Discard}, Daemon: &api.Client{}, Machine: "0123456789ab"}
		s.Redial = func(context.Context) (*api.Client, error) { return daemon, nil }
		if isRun {
			s.expectEvents()
		}
		err := s.run(t.Context(), nil, func(ctx context.Context, streams api.Stdio) (*api.Process, error) {
			if s.Daemon != daemon {
				return nil, fmt.Errorf("ask daemon: %w", ending)
			}
			return s.Daemon.Attach(ctx, s.Machine, api.AttachRequest{}, streams)
		})
		if isRun != errors.Is(err, ending) || !isRun && exit.Code(err) != 3 {
			t.Errorf("run %v: %v", isRun, err)
		}
	}
}
