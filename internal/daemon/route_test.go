package daemon

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/machine/record"
)

// routeTests has at least one test for each route, by the client of package api.
var routeTests = []struct {
	pattern string
	do      func(t *testing.T, f *fakeMachines, d *testDaemon) error
}{
	{"GET /v1/version", func(t *testing.T, _ *fakeMachines, d *testDaemon) error {
		info, err := d.Info(t.Context())
		if info.API != api.Version || info.Version != "v1-test" || info.Machines != 2 || info.Running != 1 || info.DataRoot != "/data" || info.PID == 0 {
			t.Errorf("info %+v", info)
		}
		return err
	}},
	{"GET /v1/openapi.json", func(t *testing.T, _ *fakeMachines, d *testDaemon) error {
		doc, err := d.OpenAPI(t.Context())
		if err == nil && !bytes.HasPrefix(doc, []byte("{")) {
			t.Errorf("document %.80q", doc)
		}
		return err
	}},
	{"GET /v1/machines", func(t *testing.T, _ *fakeMachines, d *testDaemon) error {
		for _, row := range []struct {
			req  api.ListRequest
			want int
		}{{api.ListRequest{}, 1}, {api.ListRequest{All: true}, 2}, {api.ListRequest{Filters: []string{"status=exited"}}, 1}} {
			list, err := d.List(t.Context(), row.req)
			if err != nil {
				return err
			}
			if len(list.Machines) != row.want {
				t.Errorf("%+v lists %d machines, want %d", row.req, len(list.Machines), row.want)
			}
		}
		return nil
	}},
	{"POST /v1/machines", func(t *testing.T, f *fakeMachines, d *testDaemon) error {
		made, err := d.Create(t.Context(), api.CreateRequest{Name: "new", Image: "app", Config: api.Config{CPUs: 2, Args: []string{"x"}}})
		if err == nil && (made.Machine.Name != "new" || made.Machine.Config.CPUs != 2 || len(made.Warnings) != 1 || made.Machine.Folder == "") {
			t.Errorf("made %+v", made)
		}
		return err
	}},
	{"GET /v1/machines/{ref}", func(t *testing.T, _ *fakeMachines, d *testDaemon) error {
		m, err := d.Inspect(t.Context(), "one")
		if m.ID != idOne || m.State != api.StateRunning || strings.Join(m.Command, " ") != "/bin/app" {
			t.Errorf("machine %+v", m)
		}
		return err
	}},
	{"GET /v1/machines/{ref}", func(t *testing.T, f *fakeMachines, d *testDaemon) error {
		f.paused = "host disk full"
		m, err := d.Inspect(t.Context(), "one")
		list, listErr := d.List(t.Context(), api.ListRequest{})
		if m.Paused != f.paused || len(list.Machines) != 1 || list.Machines[0].Paused != f.paused {
			t.Errorf("a machine that stands still is %+v, in a list %+v (%v)", m, list, listErr)
		}
		return err
	}},
	{"DELETE /v1/machines/{ref}", func(t *testing.T, f *fakeMachines, d *testDaemon) error {
		if code := codeOf(d.Remove(t.Context(), "one", false)); code != api.CodeRunning {
			t.Errorf("removal of a running machine: %q", code)
		}
		err := d.Remove(t.Context(), "one", true)
		if got := f.called(); got != `kill one "", remove one` {
			t.Errorf("calls: %s", got)
		}
		return err
	}},
	{"POST /v1/machines/{ref}/start", func(t *testing.T, f *fakeMachines, d *testDaemon) error {
		p, err := d.Start(t.Context(), "two", api.StartRequest{Accel: "tcg"}, api.Stdio{})
		if err != nil {
			return err
		}
		if exit, err := p.Wait(); err != nil || exit.Code != 0 {
			t.Errorf("exit %+v, %v", exit, err)
		}
		if f.launch.Accel != "tcg" || f.launch.First || len(f.launch.Supervisor) != 2 {
			t.Errorf("launch %+v", f.launch)
		}
		return nil
	}},
	{"POST /v1/machines/{ref}/stop", func(t *testing.T, f *fakeMachines, d *testDaemon) error {
		err := d.Stop(t.Context(), "one", api.StopRequest{Timeout: new(4)})
		if got := f.called(); got != "stop one 4s" {
			t.Errorf("calls: %s", got)
		}
		return err
	}},
	{"POST /v1/machines/{ref}/kill", func(t *testing.T, f *fakeMachines, d *testDaemon) error {
		err := d.Kill(t.Context(), "one", api.KillRequest{Signal: "HUP"})
		if got := f.called(); got != `kill one "HUP"` {
			t.Errorf("calls: %s", got)
		}
		return err
	}},
	{"POST /v1/machines/{ref}/restart", func(t *testing.T, f *fakeMachines, d *testDaemon) error {
		err := d.Restart(t.Context(), "one", api.StopRequest{})
		if got := f.called(); got != "stop one 10s, start one" {
			t.Errorf("calls: %s", got)
		}
		return err
	}},
	{"POST /v1/machines/{ref}/rename", func(t *testing.T, f *fakeMachines, d *testDaemon) error {
		err := d.Rename(t.Context(), "one", "other")
		if got := f.called(); got != "rename one other" {
			t.Errorf("calls: %s", got)
		}
		return err
	}},
	{"POST /v1/machines/{ref}/wait", func(t *testing.T, _ *fakeMachines, d *testDaemon) error {
		exit, err := d.Wait(t.Context(), "two")
		if exit.Code != 3 {
			t.Errorf("exit %+v", exit)
		}
		return err
	}},
	{"GET /v1/machines/{ref}/stats", func(t *testing.T, _ *fakeMachines, d *testDaemon) error {
		n := 0
		err := d.Stats(t.Context(), "one", false, func(s api.Stats) error { n += int(s.RSS); return nil })
		if n != 5 {
			t.Errorf("%d bytes", n)
		}
		return err
	}},
	{"GET /v1/machines/{ref}/logs", func(t *testing.T, f *fakeMachines, d *testDaemon) error {
		f.logLines = []api.LogLine{{Stream: "stdout", Data: []byte("a")}, {Stream: "stderr", Data: []byte("b\x00")}}
		var got []byte
		err := d.Logs(t.Context(), "one", api.LogsRequest{Tail: -1}, func(l api.LogLine) error { got = append(got, l.Data...); return nil })
		if string(got) != "ab\x00" {
			t.Errorf("lines %q", got)
		}
		return err
	}},
	{"POST /v1/machines/{ref}/exec", func(t *testing.T, f *fakeMachines, d *testDaemon) error {
		f.serve = echo
		var out, errOut bytes.Buffer
		p, err := d.Exec(t.Context(), "one", api.ExecRequest{Args: []string{"cat"}}, api.Stdio{In: strings.NewReader("hello"), Out: &out, Err: &errOut})
		if err != nil {
			return err
		}
		if exit, err := p.Wait(); err != nil || exit.Code != 9 || out.String() != "hello" || errOut.String() != "exec" {
			t.Errorf("exit %+v, %v, output %q, %q", exit, err, &out, &errOut)
		}
		return nil
	}},
	{"POST /v1/machines/{ref}/attach", func(t *testing.T, f *fakeMachines, d *testDaemon) error {
		f.serve = echo
		p, err := d.Attach(t.Context(), "one", api.AttachRequest{}, api.Stdio{In: strings.NewReader("")})
		if err != nil {
			return err
		}
		_, err = p.Wait()
		return err
	}},
	{"POST /v1/machines/{ref}/archive", func(t *testing.T, f *fakeMachines, d *testDaemon) error {
		f.serve = echo
		p, err := d.Archive(t.Context(), "one", api.ArchiveRequest{Path: "/etc", Op: "put"}, api.Stdio{In: strings.NewReader("tar")})
		if err != nil {
			return err
		}
		_, err = p.Wait()
		return err
	}},
	{"POST /v1/machines/{ref}/agent", func(t *testing.T, f *fakeMachines, d *testDaemon) error {
		f.agent = func(c net.Conn) {
			_, _ = io.Copy(c, io.LimitReader(c, 4)) // the client notices a lack of bytes
			closeConn(c)
		}
		c, err := d.Agent(t.Context(), "one")
		if err != nil {
			return err
		}
		defer closeConn(c)
		if _, err := c.Write([]byte("SSH-")); err != nil {
			return err
		}
		if b, err := io.ReadAll(c); err != nil || string(b) != "SSH-" {
			t.Errorf("agent said %q, %v", b, err)
		}
		return nil
	}},
	{"POST /v1/run", func(t *testing.T, f *fakeMachines, d *testDaemon) error {
		var events []api.Event
		p, err := d.Run(t.Context(), api.RunRequest{Create: api.CreateRequest{Name: "new", Image: "app", Remove: true}},
			api.Stdio{Event: func(e api.Event) { events = append(events, e) }})
		if err != nil {
			return err
		}
		if _, err := p.Wait(); err != nil {
			return err
		}
		if len(events) != 4 || events[0].Machine == nil || events[0].Machine.Name != "new" || events[1].Notice == "" || !events[3].Ready {
			t.Errorf("events %+v", events)
		}
		if !f.launch.First {
			t.Error("the launch does not remove the machine if the start fails")
		}
		return nil
	}},
	{"POST /v1/prune", func(t *testing.T, _ *fakeMachines, d *testDaemon) error {
		pruned, err := d.Prune(t.Context(), api.PruneRequest{Filters: []string{"name=two"}})
		if len(pruned.Machines) != 1 || pruned.Freed != 7 {
			t.Errorf("pruned %+v", pruned)
		}
		return err
	}},
	{"POST /v1/shutdown", func(t *testing.T, _ *fakeMachines, d *testDaemon) error {
		if err := d.Shutdown(t.Context()); err != nil {
			return err
		}
		return <-d.ended
	}},
}

const (
	idOne = "111111111111"
	idTwo = "222222222222"
)

// echo serves the stream of a command that copies its input to its output.
func echo(route string, _ any, c *frames.Conn) {
	sendBytes(c, frames.Stderr, []byte(route))
	for {
		f, err := c.Next()
		if err != nil {
			return
		}
		switch f.Kind {
		case frames.Stdin:
			sendBytes(c, frames.Stdout, f.Payload)
			sendBytes(c, frames.Credit, nil)
		case frames.CloseStdin:
			sendJSON(c, frames.Exit, api.Exit{Code: 9})
			closeConn(c)
			return
		default:
		}
	}
}

func codeOf(err error) api.ErrorCode {
	if e, ok := errors.AsType[*api.Error](err); ok {
		return e.Code
	}
	return api.ErrorCode("")
}

func TestEveryRoute(t *testing.T) {
	tested := map[string]bool{}
	for _, row := range routeTests {
		tested[row.pattern] = true
		t.Run(row.pattern, func(t *testing.T) {
			f := newFakeMachines(t)
			f.add(idOne, "one", record.StateRunning)
			f.add(idTwo, "two", record.StateExited)
			if err := row.do(t, f, startDaemon(t, f)); err != nil {
				t.Fatal(err)
			}
		})
	}
	for _, r := range new(handlers).routes() {
		if !tested[r.pattern] {
			t.Errorf("route %s has no test", r.pattern)
		}
	}
}

// TestNoSuchMachine calls each route that names a machine with one that does not
// exist.
func TestNoSuchMachine(t *testing.T) {
	d := startDaemon(t, newFakeMachines(t))
	ctx := context.Background()
	process := func(_ *api.Process, err error) error { return err }
	for name, err := range map[string]error{
		"inspect": func() error { _, err := d.Inspect(ctx, "x/y"); return err }(),
		"wait":    func() error { _, err := d.Wait(ctx, "%2f"); return err }(),
		"agent":   func() error { _, err := d.Agent(ctx, "x"); return err }(),
		"remove":  d.Remove(ctx, "x", true),
		"stop":    d.Stop(ctx, "x", api.StopRequest{}),
		"kill":    d.Kill(ctx, "é", api.KillRequest{}),
		"restart": d.Restart(ctx, "a?b", api.StopRequest{}),
		"rename":  d.Rename(ctx, "..", "y"),
		"stats":   d.Stats(ctx, "", false, func(api.Stats) error { return nil }),
		"logs":    d.Logs(ctx, "x", api.LogsRequest{}, func(api.LogLine) error { return nil }),
		"start":   process(d.Start(ctx, "x", api.StartRequest{}, api.Stdio{})),
		"exec":    process(d.Exec(ctx, "x", api.ExecRequest{}, api.Stdio{})),
		"attach":  process(d.Attach(ctx, "x", api.AttachRequest{}, api.Stdio{})),
		"archive": process(d.Archive(ctx, "x", api.ArchiveRequest{}, api.Stdio{})),
	} {
		if codeOf(err) != api.CodeNotFound {
			t.Errorf("%s: %v, want code %s", name, err, api.CodeNotFound)
		}
	}
}
