package daemon

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/machine"
)

// TestCommandsWait renames a machine while a stop works on it.
func TestCommandsWait(t *testing.T) {
	f := newFake(t)
	f.add(idOne, "one", machine.StateRunning)
	entered, goOn := make(chan struct{}), make(chan struct{})
	f.stop = func(context.Context, string) error {
		entered <- struct{}{}
		<-goOn
		return nil
	}
	d := begin(t, f)
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- d.Stop(t.Context(), "one", api.StopRequest{}) }()
	<-entered
	go func() { second <- d.Rename(t.Context(), "one", "other") }()
	if _, err := d.Inspect(t.Context(), "one"); err != nil { // who only looks does not wait
		t.Error(err)
	}
	close(goOn)
	if err := errors.Join(<-first, <-second); err != nil {
		t.Error(err)
	}
	if calls := f.called(); calls != "stop one 10s, rename one other" {
		t.Errorf("calls: %s", calls)
	}
}

func TestIdleDaemonEnds(t *testing.T) {
	f := newFake(t)
	f.add(idOne, "one", machine.StateRunning)
	d := begin(t, f, func(c *Config) { c.Idle = 20 * time.Millisecond })
	waiting := make(chan error, 1)
	go func() {
		_, err := d.Wait(t.Context(), "one")
		waiting <- err
	}()
	// The wait may come too late; then it is the daemon that is gone.
	select {
	case err := <-waiting:
		if !errors.Is(err, api.ErrUnreachable) {
			t.Fatalf("wait ended early: %v", err)
		}
	case <-time.After(200 * time.Millisecond):
		select {
		case err := <-d.ended:
			t.Fatalf("the daemon ended although a client waits: %v", err)
		default:
		}
		f.end(idOne)
		if err := <-waiting; err != nil {
			t.Fatal(err)
		}
	}
	if err := <-d.ended; err != nil {
		t.Error(err)
	}
}

func TestBusyClockDoesNotExpire(t *testing.T) {
	c := newIdleClock(time.Hour)
	c.begin()
	c.expire() // as of a timer that could not be stopped any more
	select {
	case <-c.expired:
		t.Error("expired at work")
	default:
	}
	c.end()
	c.expire()
	c.expire()
	<-c.expired
}

func TestRequestsWaitForReconcile(t *testing.T) {
	f := newFake(t)
	goOn := make(chan struct{})
	f.reconcile = func(context.Context) (machine.Report, error) {
		<-goOn
		return machine.Report{}, errors.New("a leftover stays")
	}
	d := begin(t, f)
	if _, err := d.Info(t.Context()); err != nil {
		t.Errorf("the daemon does not say what it is: %v", err)
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

// TestKillCutsAStopShort: what hurries must not wait for what does not.
func TestKillCutsAStopShort(t *testing.T) {
	f := newFake(t)
	f.add(idOne, "one", machine.StateRunning)
	entered := make(chan struct{})
	f.stop = func(_ context.Context, id string) error {
		close(entered)
		gone, _ := f.ending(id)
		<-gone
		return nil
	}
	d := begin(t, f)
	stopped := make(chan error, 1)
	go func() { stopped <- d.Stop(t.Context(), "one", api.StopRequest{}) }()
	<-entered
	if err := errors.Join(d.Kill(t.Context(), "one", api.KillRequest{}), <-stopped); err != nil {
		t.Error(err)
	}
}

// TestRunThatFails leaves nothing, whatever goes wrong and whoever goes.
func TestRunThatFails(t *testing.T) {
	f := newFake(t)
	f.supervise = func(_ context.Context, id string, c *frames.Conn) {
		tell(c, frames.Event, api.Event{Phase: "disk made"})
		tell(c, frames.Error, api.Error{Code: api.CodeNotBootable, Message: "no kernel", ExitCode: 127})
		hangUp(c)
	}
	d := begin(t, f)
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

// TestClientGoesBeforeReady closes the supervisor's stream, which ends a
// machine that was made to be run at once.
func TestClientGoesBeforeReady(t *testing.T) {
	f := newFake(t)
	hungUp := make(chan error, 1)
	f.supervise = func(_ context.Context, _ string, c *frames.Conn) {
		tell(c, frames.Event, api.Event{Phase: "disk made"})
		_, err := c.Next()
		hungUp <- err
	}
	d := begin(t, f)
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
		t.Error("the supervisor got a frame, want the end")
	}
	if _, err := p.Wait(); !errors.Is(err, api.ErrDetached) {
		t.Errorf("wait: %v", err)
	}
}

// TestAttachedStart has the stream go on after the machine is ready, while
// other commands may change the machine.
func TestAttachedStart(t *testing.T) {
	f := newFake(t)
	f.add(idTwo, "two", machine.StateExited)
	f.supervise = func(_ context.Context, _ string, c *frames.Conn) {
		tell(c, frames.Event, api.Event{Ready: true})
		for {
			frame, err := c.Next()
			if err != nil {
				return
			}
			if frame.Kind == frames.Signal {
				put(c, frames.Stdout, frame.Payload)
				tell(c, frames.Exit, api.Exit{Code: 143, Signal: "TERM"})
				hangUp(c)
				return
			}
		}
	}
	d := begin(t, f)
	var out strings.Builder
	p, err := d.Start(t.Context(), "two", api.StartRequest{Attach: true, TTY: &api.TTY{Rows: 4, Cols: 5}}, api.Stdio{Out: &out})
	if err != nil {
		t.Fatal(err)
	}
	<-p.Ready()
	if err := d.Rename(t.Context(), "two", "other"); err != nil {
		t.Errorf("a command beside the stream: %v", err)
	}
	if err := errors.Join(p.Resize(7, 8), p.Signal("TERM")); err != nil {
		t.Error(err)
	}
	if exit, err := p.Wait(); err != nil || exit.Code != 143 || out.String() != "TERM" {
		t.Errorf("exit %+v, %v, output %q", exit, err, &out)
	}
}

func TestEndOfTheDaemonEndsStreams(t *testing.T) {
	f := newFake(t)
	f.add(idOne, "one", machine.StateRunning)
	f.serve = func(_ string, _ any, c *frames.Conn) { _, _ = c.Next() }
	d := begin(t, f)
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
		t.Error("a wait that was cut off has an answer")
	}
	if took := time.Since(start); took > endTime {
		t.Errorf("the end took %v", took)
	}
}

func TestOtherProtocol(t *testing.T) {
	f := newFake(t)
	d := begin(t, f)
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
		hangUp(conn)
		if resp.StatusCode != want || resp.Header.Get(api.HeaderVersion) != "v1-test" {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
}

func TestTooManyConnections(t *testing.T) {
	f := newFake(t)
	f.add(idOne, "one", machine.StateRunning)
	f.agent = func(c net.Conn) { _, _ = c.Write([]byte("x")) }
	d := begin(t, f, func(c *Config) { c.Connections = 1 })
	held, err := d.Agent(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.List(t.Context(), api.ListRequest{}); codeOf(err) != api.CodeTooMany {
		t.Errorf("a second connection: %v", err)
	}
	hangUp(held)
	for { // the place is free when the daemon has seen the end
		_, err := d.List(t.Context(), api.ListRequest{})
		if err == nil {
			return
		}
		if codeOf(err) != api.CodeTooMany || t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
}

func TestPanicIsAnswered(t *testing.T) {
	f := newFake(t)
	d := begin(t, f)
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

func TestLogsThatBreakOff(t *testing.T) {
	f := newFake(t)
	f.add(idOne, "one", machine.StateRunning)
	f.logErr = &api.Error{Code: api.CodeNoSpace, Message: "log is gone"}
	d := begin(t, f)
	read := func() (n int, err error) {
		err = d.Logs(t.Context(), "one", api.LogsRequest{}, func(api.LogLine) error { n++; return nil })
		return n, err
	}
	if n, err := read(); n != 0 || codeOf(err) != api.CodeNoSpace {
		t.Errorf("before the first line: %d, %v", n, err)
	}
	f.logLines = []api.LogLine{{Stream: "stdout", Data: []byte("x")}}
	if n, err := read(); n != 1 || codeOf(err) != api.CodeNoSpace {
		t.Errorf("after the first line: %d, %v", n, err)
	}
	own := errors.New("the caller's")
	if err := d.Logs(t.Context(), "one", api.LogsRequest{}, func(api.LogLine) error { return own }); !errors.Is(err, own) {
		t.Errorf("error of the caller: %v", err)
	}
}

func TestAdmit(t *testing.T) {
	for _, row := range []struct {
		uid uint32
		own int
		ok  bool
	}{{1000, 1000, true}, {0, 1000, true}, {1001, 1000, false}, {1000, 0, false}} {
		if err := admit(&unix.Ucred{Uid: row.uid}, row.own); (err == nil) != row.ok {
			t.Errorf("user %d at a daemon of %d: %v", row.uid, row.own, err)
		}
	}
}

func TestListen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("a-long-name", 15))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(SocketPath(dir), nil, 0o600); err != nil { // of a dead daemon
		t.Fatal(err)
	}
	listener, lock, err := Listen(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(SocketPath(dir))
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("socket %v, %v", info, err)
	}
	if _, _, err := Listen(t.Context(), dir); !errors.Is(err, ErrServed) {
		t.Errorf("second daemon: %v", err)
	}
	if served, err := Served(dir); err != nil || !served {
		t.Errorf("served: %v, %v", served, err)
	}
	if err := errors.Join(listener.Close(), lock.Close()); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(SocketPath(dir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket stays: %v", err)
	}
	for _, dir := range []string{dir, t.TempDir()} {
		if served, err := Served(dir); err != nil || served {
			t.Errorf("after its end: %v, %v", served, err)
		}
	}
	c := &api.Client{Socket: SocketPath(dir)}
	if _, err := c.Info(t.Context()); !errors.Is(err, api.ErrUnreachable) {
		t.Errorf("without a daemon: %v", err)
	}
}
