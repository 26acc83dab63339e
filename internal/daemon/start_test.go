package daemon

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/machine/record"
)

// TestRunThatFails runs machines whose start or whose request fails.
func TestRunThatFails(t *testing.T) {
	f := newFakeMachines(t)
	f.supervise = func(_ context.Context, id string, c *frames.Conn) {
		sendJSON(c, frames.Event, api.Event{Phase: "disk made"})
		sendJSON(c, frames.Error, api.Error{Code: api.CodeNotBootable, Message: "no kernel", ExitCode: 127})
		closeConn(c)
	}
	d := startDaemon(t, f)
	p, err := d.Run(t.Context(), api.RunRequest{Create: api.CreateRequest{Name: "new", Image: "app"}}, api.Stdio{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Wait()
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != api.CodeNotBootable || e.ExitCode != 127 {
		t.Errorf("run ends with %v", err)
	}
	for name, req := range map[string]api.RunRequest{
		"no image":   {Create: api.CreateRequest{Image: "none"}},
		"no kernel":  {Create: api.CreateRequest{Image: "app", Kernel: "none"}},
		"no sense":   {Create: api.CreateRequest{Image: "app", Config: api.Config{CPUs: -1}}},
		"name taken": {Create: api.CreateRequest{Image: "app", Name: "new"}},
	} {
		_, err := d.Run(t.Context(), req, api.Stdio{})
		want := map[string]api.ErrorCode{"no image": api.CodeNoImage, "no kernel": api.CodeNoKernel, "no sense": api.CodeInvalid, "name taken": api.CodeNameTaken}[name]
		if codeOf(err) != want {
			t.Errorf("%s: %v, want code %s", name, err, want)
		}
	}
}

// TestClientDisconnectsBeforeReady disconnects the client of a run. The daemon then
// closes the supervisor's stream, by which the supervisor removes the machine.
func TestClientDisconnectsBeforeReady(t *testing.T) {
	f := newFakeMachines(t)
	hungUp := make(chan error, 1)
	f.supervise = func(_ context.Context, _ string, c *frames.Conn) {
		sendJSON(c, frames.Event, api.Event{Phase: "disk made"})
		_, err := c.Next()
		hungUp <- err
	}
	d := startDaemon(t, f)
	seen := make(chan struct{})
	p, err := d.Run(t.Context(), api.RunRequest{Create: api.CreateRequest{Name: "new", Image: "app"}}, api.Stdio{
		Event: func(e api.Event) {
			if e.Phase != "" {
				close(seen)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	<-seen
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := <-hungUp; err == nil {
		t.Error("the supervisor received a frame, want the end of the stream")
	}
	if _, err := p.Wait(); !errors.Is(err, api.ErrDetached) {
		t.Errorf("wait: %v", err)
	}
}

// TestAttachedStart attaches a client by the stream of the start. The stream continues
// after the machine is ready, and other requests can change the machine.
func TestAttachedStart(t *testing.T) {
	f := newFakeMachines(t)
	f.add(idTwo, "two", record.StateExited)
	f.supervise = func(_ context.Context, _ string, c *frames.Conn) {
		sendJSON(c, frames.Event, api.Event{Ready: true})
		for {
			frame, err := c.Next()
			if err != nil {
				return
			}
			if frame.Kind == frames.Signal {
				sendBytes(c, frames.Stdout, frame.Payload)
				sendJSON(c, frames.Exit, api.Exit{Code: 143, Signal: "TERM"})
				closeConn(c)
				return
			}
		}
	}
	d := startDaemon(t, f)
	var out strings.Builder
	p, err := d.Start(t.Context(), "two", api.StartRequest{Attach: true, TTY: &api.TTY{Rows: 4, Cols: 5}}, api.Stdio{Out: &out})
	if err != nil {
		t.Fatal(err)
	}
	<-p.Ready()
	if err := d.Rename(t.Context(), "two", "other"); err != nil {
		t.Errorf("rename during the stream: %v", err)
	}
	if err := errors.Join(p.Resize(7, 8), p.Signal("TERM")); err != nil {
		t.Error(err)
	}
	if exit, err := p.Wait(); err != nil || exit.Code != 143 || out.String() != "TERM" {
		t.Errorf("exit %+v, %v, output %q", exit, err, &out)
	}
}

// TestStartRunning starts a machine that runs already: it succeeds, and attaches the
// client that asks for it.
func TestStartRunning(t *testing.T) {
	f := newFakeMachines(t)
	f.add(idOne, "one", record.StateRunning)
	f.serve = func(route string, _ any, c *frames.Conn) {
		sendJSON(c, frames.Event, api.Event{Ready: true})
		sendBytes(c, frames.Stdout, []byte(route))
		sendJSON(c, frames.Exit, api.Exit{Code: 4})
	}
	d := startDaemon(t, f)
	for _, row := range []struct {
		name string
		req  api.StartRequest
		code int
		out  string
		err  api.ErrorCode
	}{
		{name: "in the background"},
		{name: "attached", req: api.StartRequest{Attach: true}, code: 4, out: "attach"},
		{name: "another kernel", req: api.StartRequest{Accel: "tcg"}, err: api.CodeRunning},
	} {
		t.Run(row.name, func(t *testing.T) {
			var out strings.Builder
			p, err := d.Start(t.Context(), "one", row.req, api.Stdio{Out: &out})
			if codeOf(err) != row.err {
				t.Fatalf("start: %v, want code %q", err, row.err)
			}
			if err != nil {
				return
			}
			if exit, err := p.Wait(); err != nil || exit.Code != row.code || out.String() != row.out {
				t.Errorf("exit %+v, %v, output %q; want code %d, output %q", exit, err, &out, row.code, row.out)
			}
		})
	}
	if got := f.called(); got != "" {
		t.Errorf("calls: %s", got)
	}
}

// TestTwoStarts starts a machine twice at once. Both starts succeed when it is ready.
func TestTwoStarts(t *testing.T) {
	f := newFakeMachines(t)
	f.add(idOne, "one", record.StateExited)
	booted := make(chan struct{})
	f.supervise = func(_ context.Context, _ string, c *frames.Conn) {
		<-booted
		sendJSON(c, frames.Event, api.Event{Ready: true})
		closeConn(c)
	}
	d := startDaemon(t, f)
	var starts sync.WaitGroup
	for range 2 {
		starts.Go(func() {
			p, err := d.Start(t.Context(), "one", api.StartRequest{}, api.Stdio{})
			if err == nil {
				_, err = p.Wait()
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	close(booted)
	starts.Wait()
	if got := f.called(); got != "start one" {
		t.Errorf("calls: %s", got)
	}
}
