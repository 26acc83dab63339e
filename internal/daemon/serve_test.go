package daemon

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/repair"
)

func TestRequestsWaitForReconcile(t *testing.T) {
	f := newFakeMachines(t)
	goOn := make(chan struct{})
	f.reconcile = func(context.Context) (repair.Report, error) {
		<-goOn
		return repair.Report{}, errors.New("a leftover stays")
	}
	d := startDaemon(t, f)
	if _, err := d.Info(t.Context()); err != nil {
		t.Errorf("info before the machines are reconciled: %v", err)
	}
	listed := make(chan error, 1)
	go func() {
		_, err := d.List(t.Context(), api.ListRequest{})
		listed <- err
	}()
	select {
	case err := <-listed:
		t.Errorf("listed before the machines are reconciled: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(goOn)
	if err := <-listed; err != nil {
		t.Error(err)
	}
}

func TestShutdownEndsStreams(t *testing.T) {
	f := newFakeMachines(t)
	f.add(idOne, "one", record.StateRunning)
	f.serve = func(_ string, _ any, c *frames.Conn) { _, _ = c.Next() }
	d := startDaemon(t, f)
	p, err := d.Exec(t.Context(), "one", api.ExecRequest{Args: []string{"sleep"}}, api.Stdio{})
	if err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() {
		_, err := d.Wait(t.Context(), "one")
		waited <- err
	}()
	start := time.Now()
	d.stop()
	if err := <-d.ended; err != nil {
		t.Error(err)
	}
	if _, err := p.Wait(); !errors.Is(err, api.ErrLost) {
		t.Errorf("stream ends with %v", err)
	}
	if err := <-waited; err == nil {
		t.Error("a wait that the shutdown interrupted has an answer")
	}
	if took := time.Since(start); took > shutdownTime {
		t.Errorf("the shutdown took %v", took)
	}
}

// TestExecOutlivesDaemon ends the daemon during an exec. The supervisor has taken its
// client over, so the client gets the output and the exit code.
func TestExecOutlivesDaemon(t *testing.T) {
	f := newFakeMachines(t)
	f.add(idOne, "one", record.StateRunning)
	f.takes = true
	goOn := make(chan struct{})
	f.serve = func(_ string, _ any, c *frames.Conn) {
		defer closeConn(c)
		sendJSON(c, frames.Event, api.Event{Ready: true})
		frame, err := c.Next()
		if err != nil {
			return
		}
		<-goOn
		sendBytes(c, frames.Stdout, frame.Payload)
		sendJSON(c, frames.Exit, api.Exit{Code: 5})
	}
	d := startDaemon(t, f)
	var out strings.Builder
	p, err := d.Exec(t.Context(), "one", api.ExecRequest{Args: []string{"cat"}}, api.Stdio{In: strings.NewReader("hello"), Out: &out})
	if err != nil {
		t.Fatal(err)
	}
	d.stop()
	if err := <-d.ended; err != nil {
		t.Error(err)
	}
	close(goOn)
	if exit, err := p.Wait(); err != nil || exit.Code != 5 || out.String() != "hello" {
		t.Errorf("exit %+v, %v, output %q", exit, err, &out)
	}
}

func TestOtherProtocol(t *testing.T) {
	f := newFakeMachines(t)
	d := startDaemon(t, f)
	for path, want := range map[string]int{
		"/v1/machines": http.StatusUpgradeRequired, "/v1/version": http.StatusOK, "/v1/openapi.json": http.StatusOK,
	} {
		conn, err := net.Dial("unix", d.Socket)
		if err != nil {
			t.Fatal(err)
		}
		client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}}
		req, err := http.NewRequest(http.MethodGet, "http://b"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(api.HeaderAPI, "99")
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		closeConn(conn)
		if resp.StatusCode != want || resp.Header.Get(api.HeaderVersion) != "v1-test" {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
}

func TestPanicIsAnswered(t *testing.T) {
	f := newFakeMachines(t)
	d := startDaemon(t, f)
	if _, err := d.List(t.Context(), api.ListRequest{}); err != nil {
		t.Fatal(err)
	}
	f.panics = true
	_, err := d.List(t.Context(), api.ListRequest{})
	f.panics = false
	if codeOf(err) != api.CodeInternal {
		t.Errorf("panic: %v", err)
	}
	if _, err := d.List(t.Context(), api.ListRequest{}); err != nil {
		t.Errorf("after the panic: %v", err)
	}
}
