package attach

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/exit"
)

// A stage is a daemon that has one machine, whose start goes as a test says.
type stage struct {
	t     *testing.T
	asked chan string // what the daemon is asked of the machine besides: stop, kill

	mu      sync.Mutex // one connection plays at a time
	conn    *frames.Conn
	machine api.Machine // as it is found when the daemon is there again
	plays   int         // connections so far
}

// newStage serves a start that play goes through.
func newStage(t *testing.T, play func(*stage)) (*stage, *api.Client) {
	t.Helper()
	s := &stage{t: t, asked: make(chan string, 8), machine: api.Machine{ID: "0123456789ab", State: api.StateRunning}}
	mux := http.NewServeMux()
	upgrade := func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		// The connection is free for the stream once the request is read.
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Error(err)
		}
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		head := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + api.Protocol + "\r\n" +
			api.HeaderAPI + ": " + strconv.Itoa(api.Version) + "\r\n\r\n"
		if _, err := io.WriteString(conn, head); err != nil {
			t.Error(err)
		}
		s.conn = frames.NewBuffered(conn, buffered.Reader)
		defer s.conn.Close()
		s.plays++
		play(s)
	}
	mux.HandleFunc("POST /v1/run", upgrade)
	mux.HandleFunc("POST /v1/machines/{id}/attach", upgrade)
	mux.HandleFunc("GET /v1/machines/{id}", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		w.Header().Set(api.HeaderAPI, strconv.Itoa(api.Version))
		if err := json.NewEncoder(w).Encode(s.machine); err != nil {
			t.Error(err)
		}
	})
	mux.HandleFunc("POST /v1/machines/{id}/{verb}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(api.HeaderAPI, strconv.Itoa(api.Version))
		s.asked <- r.PathValue("verb") + " " + r.PathValue("id")
	})
	mux.HandleFunc("DELETE /v1/machines/{id}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(api.HeaderAPI, strconv.Itoa(api.Version))
		s.asked <- "remove " + r.PathValue("id")
	})
	socket := filepath.Join(t.TempDir(), "daemon.sock")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	go func() {
		server.Serve(l)
		close(served)
	}()
	t.Cleanup(func() {
		server.Close()
		<-served
	})
	return s, &api.Client{Socket: socket}
}

func (s *stage) send(kind frames.Kind, v any) {
	if err := s.conn.SendJSON(kind, v); err != nil {
		s.t.Error(err)
	}
}

// ready goes through a boot.
func (s *stage) ready() {
	s.send(frames.Event, api.Event{Machine: &api.Machine{ID: "0123456789ab"}})
	s.send(frames.Event, api.Event{Ready: true})
}

// next wants a frame of the kind and returns its text.
func (s *stage) next(kind frames.Kind) string {
	f, err := s.conn.Next()
	if err != nil || f.Kind != kind {
		s.t.Errorf("frame %d %q, %v, want one of kind %d", f.Kind, f.Payload, err, kind)
	}
	return string(f.Payload)
}

// told wants a request beside the stream.
func (s *stage) told(want string) {
	if got := <-s.asked; got != want {
		s.t.Errorf("the daemon is asked to %s, want %s", got, want)
	}
}

// A screen collects what is written, and tells of it.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
	wait map[string]chan struct{}
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.text.Write(p)
	for want, ch := range s.wait {
		if strings.Contains(s.text.String(), want) {
			close(ch)
			delete(s.wait, want)
		}
	}
	return n, err
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// shows is closed when the screen has the text.
func (s *screen) shows(want string) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch := make(chan struct{})
	if strings.Contains(s.text.String(), want) {
		close(ch)
		return ch
	}
	if s.wait == nil {
		s.wait = map[string]chan struct{}{}
	}
	s.wait[want] = ch
	return ch
}

// TestForeground goes through what can happen to a run. Exit codes are those
// of the process.
func TestForeground(t *testing.T) {
	for _, row := range []struct {
		name    string
		play    func(*stage)
		signals string // that the user sends, each when the screen shows its text before the colon
		in      io.Reader
		keys    string
		timeout time.Duration
		stays   bool // the machine was there before
		code    int
		out     string
		err     string // in what is said
		lost    bool   // the error is a LostError
	}{
		{name: "outputs and exit code", code: 7, out: "to out\n", err: "to err\n", play: func(s *stage) {
			s.ready()
			s.say(frames.Stdout, "to out\n")
			s.say(frames.Stderr, "to err\n")
			s.send(frames.Exit, api.Exit{Code: 7})
		}},
		{name: "booted again", out: "once\nagain\n", play: func(s *stage) {
			s.ready()
			s.say(frames.Stdout, "once\n")
			s.send(frames.Event, api.Event{Ready: true})
			s.say(frames.Stdout, "again\n")
			s.send(frames.Exit, api.Exit{})
		}},
		{name: "the daemon is killed during a boot", code: 125, err: "connection to the daemon lost", play: func(*stage) {}},
		{name: "remarks", err: "no KVM here", play: func(s *stage) {
			s.send(frames.Event, api.Event{Notice: "no KVM here"})
			s.ready()
			s.send(frames.Exit, api.Exit{})
		}},
		{name: "input waits for the command", in: strings.NewReader("typed"), out: "typed", play: func(s *stage) {
			s.ready()
			s.say(frames.Stdout, s.next(frames.Stdin))
			s.next(frames.CloseStdin)
			s.send(frames.Exit, api.Exit{})
		}},
		{name: "the first signal goes to the command", signals: "up:", code: 42, play: func(s *stage) {
			s.ready()
			s.say(frames.Stderr, "up")
			if got := s.next(frames.Signal); got != "INT" {
				s.t.Errorf("signal %s, want INT", got)
			}
			s.send(frames.Exit, api.Exit{Code: 42})
		}},
		{name: "the second stops the machine", signals: "up: one:", code: 9, err: "once more to kill it", play: func(s *stage) {
			s.twice()
			s.send(frames.Exit, api.Exit{Code: 9})
		}},
		{name: "one that fails while it stops", signals: "up: one:", code: 130, play: func(s *stage) {
			s.twice()
			s.send(frames.Exit, api.Exit{Code: 125, Error: "machine ended: without a word"})
		}},
		{name: "the third kills it", signals: "up: one: two:", code: 130, play: func(s *stage) {
			s.twice()
			s.say(frames.Stderr, "two")
			s.told("kill 0123456789ab")
			s.send(frames.Exit, api.Exit{Code: 137, Error: "killed"})
		}},
		{name: "one before the command takes the machine away", signals: "booting:", code: 125, err: "interrupted", play: func(s *stage) {
			s.send(frames.Event, api.Event{Machine: &api.Machine{ID: "0123456789ab"}})
			s.send(frames.Event, api.Event{Notice: "booting"})
			s.gone()
		}},
		{name: "one before the machine is known", signals: "booting:", code: 125, err: "interrupted", play: func(s *stage) {
			s.send(frames.Event, api.Event{Notice: "booting"})
			s.send(frames.Event, api.Event{Machine: &api.Machine{ID: "0123456789ab"}})
			s.gone()
		}},
		{name: "one before the command of a machine that stays", stays: true, signals: "booting:", code: 125, err: "interrupted", play: func(s *stage) {
			s.send(frames.Event, api.Event{Notice: "booting"})
			s.told("kill 0123456789ab")
			s.send(frames.Error, &api.Error{Code: api.CodeFailed, Message: "machine ended: killed"})
		}},
		{name: "the time limit", timeout: time.Millisecond, code: 124, err: "time limit of 1ms", play: func(s *stage) {
			s.ready()
			s.told("stop 0123456789ab")
			s.send(frames.Exit, api.Exit{Code: 143})
		}},
		{name: "detached", in: strings.NewReader("ab\x10\x11"), keys: "\x10\x11", err: "banger attach 0123456789ab", play: func(s *stage) {
			s.ready()
			if got := s.next(frames.Stdin); got != "ab" {
				s.t.Errorf("input %q", got)
			}
			if f, err := s.conn.Next(); err == nil {
				s.t.Errorf("frame %d %q after the keys", f.Kind, f.Payload)
			}
		}},
		{name: "the machine fails", code: 125, err: "machine ended: kernel panic", play: func(s *stage) {
			s.ready()
			s.send(frames.Exit, api.Exit{Code: 125, Error: "machine ended: kernel panic"})
		}},
		{name: "the command cannot be run", code: 127, err: "nope: no such file", play: func(s *stage) {
			s.ready()
			s.send(frames.Error, &api.Error{Code: api.CodeNoCommand, Message: "nope: no such file", ExitCode: 127})
		}},
		{name: "the request makes no sense", code: 2, err: "memory", play: func(s *stage) {
			s.send(frames.Error, &api.Error{Code: api.CodeInvalid, Message: "memory of 1 MiB"})
		}},
		{name: "the daemon is killed", in: strings.NewReader("typed"), code: 6, out: "one two", err: "attached to the machine again", play: func(s *stage) {
			if s.plays == 1 {
				s.ready()
				s.next(frames.Stdin)
				s.next(frames.CloseStdin)
				s.say(frames.Stdout, "one ")
				return
			}
			s.say(frames.Stdout, "two")
			s.send(frames.Exit, api.Exit{Code: 6})
		}},
		{name: "and the machine ends meanwhile", code: 4, play: func(s *stage) {
			s.machine.State, s.machine.ExitCode = api.StateExited, 4
			s.ready()
		}},
		{name: "and the machine fails meanwhile", code: 125, err: "its supervisor was killed", play: func(s *stage) {
			s.machine.State, s.machine.ExitCode, s.machine.Error = api.StateExited, 125, "its supervisor was killed"
			s.ready()
		}},
		{name: "and again and again", code: 125, lost: true, play: func(s *stage) {
			if s.plays == 1 {
				s.ready()
			}
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, daemon := newStage(t, row.play)
			out, errs := new(screen), new(screen)
			signals := make(chan os.Signal)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			f := &Session{Env: &env.Env{Out: out, Err: errs}, Daemon: daemon, Timeout: row.timeout, keys: []byte(row.keys)}
			f.Redial = func(context.Context) (*api.Client, error) { return daemon, nil }
			if f.RemoveOnAbort = !row.stays; row.stays {
				f.Machine = "0123456789ab"
			}
			if row.keys == "" {
				f.keys = nil
			}
			f.streams = api.Stdio{In: row.in, Out: out, Err: errs}
			f.expectEvents()
			go func() {
				for text := range strings.FieldsSeq(row.signals) {
					<-errs.shows(strings.TrimSuffix(text, ":"))
					signals <- syscall.SIGINT
				}
			}()
			err := exit.OfCommand(f.run(ctx, signals, func(ctx context.Context, streams api.Stdio) (*api.Process, error) {
				return daemon.Run(ctx, api.RunRequest{Start: api.StartRequest{Attach: true}}, streams)
			}))
			if err != nil {
				fmt.Fprintln(errs, err)
			}
			if lost, ok := errors.AsType[*LostError](err); ok != row.lost || ok && lost.Machine != "0123456789ab" {
				t.Errorf("error %v, want that of a lost connection: %v", err, row.lost)
			}
			code := exit.Code(err)
			if code != row.code || out.String() != row.out || !strings.Contains(errs.String(), row.err) {
				t.Errorf("code %d, want %d; out %q, want %q; said %q, want %q in it", code, row.code, out, row.out, errs, row.err)
			}
		})
	}
}

// say sends output.
func (s *stage) say(kind frames.Kind, text string) {
	if err := s.conn.Send(kind, []byte(text)); err != nil {
		s.t.Error(err)
	}
}

// gone wants the client to go and the machine to be removed.
func (s *stage) gone() {
	s.told("remove 0123456789ab")
	if f, err := s.conn.Next(); err == nil {
		s.t.Errorf("frame %d", f.Kind)
	}
}

// twice goes through a run until its second signal has had its effect.
func (s *stage) twice() {
	s.ready()
	s.say(frames.Stderr, "up")
	s.next(frames.Signal)
	s.say(frames.Stderr, "one")
	s.told("stop 0123456789ab")
}

// closedPipe is an output that nobody reads any more.
type closedPipe struct{}

func (closedPipe) Write([]byte) (int, error) { return 0, syscall.EPIPE }

// A machine whose output nobody reads is stopped.
func TestForegroundBrokenOutput(t *testing.T) {
	s, daemon := newStage(t, func(s *stage) {
		s.ready()
		s.say(frames.Stdout, "unread")
		if f, err := s.conn.Next(); err == nil {
			s.t.Errorf("frame %d", f.Kind)
		}
	})
	f := &Session{Env: &env.Env{Err: io.Discard}, Daemon: daemon}
	f.streams.Out = closedPipe{}
	f.expectEvents()
	err := f.run(t.Context(), nil, func(ctx context.Context, streams api.Stdio) (*api.Process, error) {
		return daemon.Run(ctx, api.RunRequest{Start: api.StartRequest{Attach: true}}, streams)
	})
	if !errors.Is(err, syscall.EPIPE) {
		t.Errorf("error %v, want that of the output", err)
	}
	s.told("stop 0123456789ab")
}

// One that somebody else started goes on.
func TestAttachBrokenOutput(t *testing.T) {
	s, daemon := newStage(t, func(s *stage) {
		s.say(frames.Stdout, "unread")
		if f, err := s.conn.Next(); err == nil {
			s.t.Errorf("frame %d", f.Kind)
		}
	})
	f := &Session{Env: &env.Env{Err: io.Discard}, Daemon: daemon, Machine: "0123456789ab"}
	f.streams.Out = closedPipe{}
	err := f.run(t.Context(), nil, func(ctx context.Context, streams api.Stdio) (*api.Process, error) {
		return daemon.Attach(ctx, f.Machine, api.AttachRequest{}, streams)
	})
	if !errors.Is(err, syscall.EPIPE) {
		t.Errorf("error %v, want that of the output", err)
	}
	select {
	case asked := <-s.asked:
		t.Errorf("the daemon is asked to %s", asked)
	default:
	}
}

// OnReady gets the ID of a machine that came up, and is not called when none did.
func TestOnReady(t *testing.T) {
	for _, row := range []struct {
		name string
		play func(*stage)
		want []string
	}{
		{"a start that fails", func(s *stage) {
			s.send(frames.Event, api.Event{Machine: &api.Machine{ID: "0123456789ab"}})
			s.send(frames.Error, &api.Error{Code: api.CodeFailed, Message: "no"})
		}, nil},
		{"a start", func(s *stage) {
			s.ready()
			s.send(frames.Exit, api.Exit{})
		}, []string{"0123456789ab"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, daemon := newStage(t, row.play)
			var got []string
			f := &Session{Env: &env.Env{Out: io.Discard, Err: io.Discard}, Daemon: daemon}
			f.OnReady = func(id string) error {
				got = append(got, id)
				return nil
			}
			f.expectEvents()
			err := f.run(t.Context(), nil, func(ctx context.Context, streams api.Stdio) (*api.Process, error) {
				return daemon.Run(ctx, api.RunRequest{Start: api.StartRequest{Attach: true}}, streams)
			})
			if (err == nil) != (row.want != nil) || !slices.Equal(got, row.want) {
				t.Errorf("OnReady got %q, want %q; error %v", got, row.want, err)
			}
		})
	}
}
