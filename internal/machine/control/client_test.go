package control_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/base/unixsocket"
	"github.com/banger-vm/banger/internal/machine/control"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/test/support/testmachine"
)

// serve listens at the control socket of a machine and answers each request with
// answer.
func serve(t *testing.T, root *record.Root, id string, answer func(*frames.Conn, *control.Request)) {
	t.Helper()
	l, err := unixsocket.In(root.RuntimeDir(id), control.SocketFile, func(path string) (net.Listener, error) {
		var lc net.ListenConfig
		return lc.Listen(t.Context(), "unix", path)
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		unixsocket.Serve(l, func(raw net.Conn) {
			conn := frames.New(raw)
			defer conn.Close()
			request := new(control.Request)
			f, err := conn.Next()
			if err == nil {
				err = f.JSON(request)
			}
			if err != nil || f.Kind != frames.Request {
				t.Errorf("request of kind %d: %v", f.Kind, err)
				return
			}
			answer(conn, request)
		})
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
}

func TestDo(t *testing.T) {
	for _, row := range []struct {
		name   string
		answer func(*frames.Conn, *control.Request)
		is     func(error) bool
		want   int // the exit code in the answer
	}{
		{"an answer", func(c *frames.Conn, r *control.Request) {
			if r.Wait {
				c.SendJSON(frames.Exit, api.Exit{Code: 3})
			}
		}, func(err error) bool { return err == nil }, 3},
		{"an Error frame", func(c *frames.Conn, _ *control.Request) {
			c.SendJSON(frames.Error, api.Error{Code: api.CodeBusy, Message: "busy"})
		}, func(err error) bool {
			sent, ok := errors.AsType[*api.Error](err)
			return ok && sent.Code == api.CodeBusy && sent.Message == "busy"
		}, 0},
		{"an end without an answer", func(*frames.Conn, *control.Request) {}, func(err error) bool {
			return errors.Is(err, io.EOF) && strings.Contains(err.Error(), "wait for supervisor of machine ")
		}, 0},
		{"an answer that is not JSON", func(c *frames.Conn, _ *control.Request) {
			c.Send(frames.Exit, []byte("{"))
		}, func(err error) bool { return err != nil && !errors.Is(err, io.EOF) }, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			root := testmachine.OpenRoot(t)
			rec, dir := testmachine.Lock(t, root, "box", nil)
			defer dir.Close()
			serve(t, root, rec.ID, row.answer)
			var exit api.Exit
			err := control.Client{Root: root}.Do(t.Context(), rec.ID, &control.Request{Wait: true}, &exit)
			if !row.is(err) || exit.Code != row.want {
				t.Errorf("exit %+v, error %v", exit, err)
			}
		})
	}
}

// TestDoWaitsForTheSupervisor sends a request to a supervisor that has locked its
// machine and does not listen yet.
func TestDoWaitsForTheSupervisor(t *testing.T) {
	root := testmachine.OpenRoot(t)
	rec, dir := testmachine.Lock(t, root, "box", nil)
	defer dir.Close()
	done := make(chan error, 1)
	go func() {
		done <- control.Client{Root: root}.Do(t.Context(), rec.ID, &control.Request{Wait: true}, nil)
	}()
	select {
	case err := <-done:
		t.Fatalf("Do returned before the supervisor listened: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	serve(t, root, rec.ID, func(c *frames.Conn, _ *control.Request) { c.SendJSON(frames.Exit, api.Exit{}) })
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestDoWithoutASupervisor sends requests to machines that no process has locked. A
// killed supervisor has left its socket, or there is none.
func TestDoWithoutASupervisor(t *testing.T) {
	for _, socket := range []bool{true, false} {
		root := testmachine.OpenRoot(t)
		rec, dir := testmachine.Lock(t, root, "box", nil)
		dir.Unlock()
		if socket {
			path := filepath.Join(root.RuntimeDir(rec.ID), control.SocketFile)
			l, err := unixsocket.In(root.RuntimeDir(rec.ID), control.SocketFile, func(path string) (*net.UnixListener, error) {
				return net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
			})
			if err != nil {
				t.Fatal(err)
			}
			l.SetUnlinkOnClose(false)
			l.Close()
			if _, err := os.Lstat(path); err != nil {
				t.Fatal(err)
			}
		}
		err := control.Client{Root: root}.Do(t.Context(), rec.ID, &control.Request{Stats: true}, nil)
		if !errors.Is(err, record.ErrNotRunning) || !strings.Contains(err.Error(), rec.ID) {
			t.Errorf("socket %v: %v, want ErrNotRunning with the machine's ID", socket, err)
		}
		if conn, err := (control.Client{Root: root}).Dial(t.Context(), rec); !errors.Is(err, record.ErrNotRunning) {
			t.Errorf("socket %v: Dial = %v, %v, want ErrNotRunning", socket, conn, err)
		}
	}
}

// TestDoEndsWithItsContext ends the context while Do waits for the answer.
func TestDoEndsWithItsContext(t *testing.T) {
	root := testmachine.OpenRoot(t)
	rec, dir := testmachine.Lock(t, root, "box", nil)
	defer dir.Close()
	ctx, cancel := context.WithCancel(t.Context())
	serve(t, root, rec.ID, func(c *frames.Conn, _ *control.Request) {
		cancel()
		if f, err := c.Next(); err == nil { // returns when Do closes its end
			t.Errorf("a second frame of kind %d", f.Kind)
		}
	})
	err := control.Client{Root: root}.Do(ctx, rec.ID, &control.Request{Wait: true}, nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want context.Canceled", err)
	}
}
