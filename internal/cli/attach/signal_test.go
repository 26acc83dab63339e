package attach

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/exit"
)

// TestSignals sends signals to a session that is attached to a running command.
func TestSignals(t *testing.T) {
	for _, row := range []struct {
		name      string
		signals   []syscall.Signal
		exec      bool
		noSignals bool
		delivered []string // to the command
		code      int
		err       string // part of standard error
	}{
		{
			name: "signals that ask for no end", signals: []syscall.Signal{syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGHUP},
			delivered: []string{"USR1", "USR2", "HUP"},
		},
		{
			name: "a third signal leaves exec", exec: true, signals: []syscall.Signal{syscall.SIGINT, syscall.SIGINT, syscall.SIGTERM},
			delivered: []string{"INT", "INT"}, code: 143,
		},
		{
			name: "a signal that is not passed on", noSignals: true, signals: []syscall.Signal{syscall.SIGUSR1, syscall.SIGINT},
			delivered: []string{"USR1"}, code: 130, err: "banger attach 0123456789ab",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			delivered := make(chan string)
			d, daemon := newDaemon(t, func(d *fakeDaemon) {
				defer close(delivered)
				for range row.delivered {
					delivered <- d.next(frames.Signal)
				}
				if row.code == 0 {
					d.send(frames.Exit, api.Exit{})
				}
				if f, err := d.conn.Next(); err == nil {
					t.Errorf("frame %d %q after the last signal", f.Kind, f.Payload)
				}
			})
			errs := new(screen)
			s := &Session{Env: &env.Env{Err: errs}, Daemon: daemon, Machine: "0123456789ab", Exec: row.exec, NoSignals: row.noSignals}
			signals := make(chan os.Signal)
			var got []string
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				for _, sig := range row.signals {
					signals <- sig
					if text, ok := <-delivered; ok {
						got = append(got, text)
					}
				}
			}()
			err := s.run(t.Context(), signals, func(ctx context.Context, streams api.Stdio) (*api.Process, error) {
				return daemon.Attach(ctx, s.Machine, api.AttachRequest{}, streams)
			})
			if code := exit.Code(err); code != row.code || !strings.Contains(errs.String(), row.err) {
				t.Errorf("code %d, want %d; standard error %q, want %q in it", code, row.code, errs, row.err)
			}
			<-sent
			if !slices.Equal(got, row.delivered) {
				t.Errorf("the command got %q, want %q", got, row.delivered)
			}
			select {
			case request := <-d.requests:
				t.Errorf("request %q", request)
			default:
			}
		})
	}
}

// TestTerminalOfCommand checks that a command with a terminal gets its size, and the
// new one after SIGWINCH, and that the user's terminal is in raw mode meanwhile.
func TestTerminalOfCommand(t *testing.T) {
	tty := openPTY(t)
	attached := make(chan struct{})
	_, daemon := newDaemon(t, func(d *fakeDaemon) {
		for _, want := range []api.TTY{{Rows: 30, Cols: 100}, {Rows: 40, Cols: 120}} {
			var got api.TTY
			if err := json.Unmarshal([]byte(d.next(frames.Resize)), &got); err != nil || got != want {
				t.Errorf("size %+v, %v, want %+v", got, err, want)
			}
			if want.Rows == 30 {
				close(attached)
			}
		}
		d.send(frames.Exit, api.Exit{})
	})
	s := &Session{Env: &env.Env{In: tty}, Daemon: daemon, Machine: "0123456789ab"}
	if err := s.Open(true, true, ""); err != nil {
		t.Fatal(err)
	}
	signals := make(chan os.Signal)
	go func() {
		<-attached
		if echoes(t, tty) {
			t.Error("the terminal is not in raw mode")
		}
		if err := pty.Setsize(tty, &pty.Winsize{Rows: 40, Cols: 120}); err != nil {
			t.Error(err)
		}
		signals <- syscall.SIGWINCH
	}()
	err := s.run(t.Context(), signals, func(ctx context.Context, streams api.Stdio) (*api.Process, error) {
		return s.attach(ctx, s.Machine, streams)
	})
	if err != nil {
		t.Error(err)
	}
	if !echoes(t, tty) {
		t.Error("the terminal is in raw mode after the end")
	}
}
