package attach

import (
	"context"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/exit"
)

// TestHangUp checks that the end of the user's terminal leaves a machine running,
// whichever sign of it comes first: the signal, the end of the input, or the error
// of the output.
func TestHangUp(t *testing.T) {
	for _, row := range []struct {
		name  string
		attr  Session
		sign  func(master, slave *os.File, signals chan<- os.Signal)
		serve func(*fakeDaemon)
		code  int
	}{
		{name: "SIGHUP", code: 129, sign: func(_, _ *os.File, signals chan<- os.Signal) { signals <- syscall.SIGHUP }},
		{name: "the input ends", code: 129, sign: func(master, _ *os.File, _ chan<- os.Signal) { master.Close() }},
		{name: "the output fails", code: 129, attr: Session{inTerminal: true}, serve: func(d *fakeDaemon) {
			d.write(frames.Stderr, "fails")
		}},
		{name: "a boot of an old machine", code: 129, sign: func(_, _ *os.File, signals chan<- os.Signal) { signals <- syscall.SIGHUP },
			serve: func(d *fakeDaemon) { d.send(frames.Event, api.Event{Notice: "booting"}) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			began := make(chan struct{})
			d, daemon := newDaemon(t, func(d *fakeDaemon) {
				if row.serve == nil {
					d.ready()
				} else {
					row.serve(d)
				}
				close(began)
				for {
					f, err := d.conn.Next()
					if err != nil {
						return
					}
					if f.Kind != frames.Resize {
						d.t.Errorf("frame %d %q: the command must not see the end of the terminal", f.Kind, f.Payload)
					}
				}
			})
			master, slave, err := pty.Open()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				master.Close()
				slave.Close()
			})
			s := row.attr
			s.Env, s.Daemon, s.Machine = &env.Env{In: slave, Out: io.Discard, Err: hungUpOutput{}}, daemon, "0123456789ab"
			if err := s.Open(true, true, DefaultDetachKeys); err != nil {
				t.Fatal(err)
			}
			s.expectEvents()
			signals := make(chan os.Signal)
			go func() {
				<-began
				if row.sign != nil {
					row.sign(master, slave, signals)
				}
			}()
			err = s.run(t.Context(), signals, func(ctx context.Context, streams api.Stdio) (*api.Process, error) {
				return daemon.Run(ctx, api.RunRequest{Start: api.StartRequest{Attach: true}}, streams)
			})
			if code := exit.Code(err); code != row.code {
				t.Errorf("code %d (%v), want %d", code, err, row.code)
			}
			select {
			case request := <-d.requests:
				t.Errorf("request %q", request)
			default:
			}
		})
	}
}

// hungUpOutput is a terminal that is gone.
type hungUpOutput struct{}

func (hungUpOutput) Write([]byte) (int, error) { return 0, syscall.EIO }

// TestHangUpDuringFirstBoot checks that the end of the terminal during the boot of
// a new machine removes the machine.
func TestHangUpDuringFirstBoot(t *testing.T) {
	_, daemon := newDaemon(t, func(d *fakeDaemon) {
		d.send(frames.Event, api.Event{Machine: &api.Machine{ID: "0123456789ab"}})
		d.send(frames.Event, api.Event{Notice: "booting"})
		d.removed()
	})
	errs := new(screen)
	s := &Session{Env: &env.Env{In: strings.NewReader(""), Out: io.Discard, Err: errs}, Daemon: daemon, RemoveOnAbort: true}
	s.term = &terminal{}
	s.streams = api.Stdio{Out: io.Discard, Err: errs}
	s.expectEvents()
	signals := make(chan os.Signal)
	go func() {
		<-errs.shows("booting")
		signals <- syscall.SIGHUP
	}()
	err := s.run(t.Context(), signals, func(ctx context.Context, streams api.Stdio) (*api.Process, error) {
		return daemon.Run(ctx, api.RunRequest{Start: api.StartRequest{Attach: true}}, streams)
	})
	if code := exit.Code(exit.OfCommand(err)); code != exit.Own {
		t.Errorf("code %d (%v), want %d", code, err, exit.Own)
	}
}
