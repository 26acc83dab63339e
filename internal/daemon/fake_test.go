package daemon

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/machine"
	"github.com/banger-vm/banger/internal/machine/bootplan"
	"github.com/banger-vm/banger/internal/machine/control"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/repair"
	"github.com/banger-vm/banger/internal/machine/spec"
)

// fakeMachines implements machines with records in memory. Its functions do the work
// of the supervisors.
type fakeMachines struct {
	dir string

	mu       sync.Mutex
	recs     map[string]*record.Record
	calls    []string // the calls that changed a machine, in order
	launch   control.Launch
	gone     map[string]chan struct{} // closed when a machine's supervisor ends
	repaired chan string              // the IDs with which RepairMachine was called

	supervise func(ctx context.Context, id string, c *frames.Conn) // serves the stream of a start
	serve     func(route string, req any, c *frames.Conn)          // serves the streams of exec, attach and archive
	stop      func(ctx context.Context, id string) error
	reconcile func(ctx context.Context) (repair.Report, error)
	logLines  []api.LogLine
	logErr    error
	agent     func(net.Conn)
	panics    bool
	takes     bool   // the supervisors take over the connections of clients
	paused    string // the answer of Paused for all machines
}

func newFakeMachines(t *testing.T) *fakeMachines {
	t.Helper()
	return &fakeMachines{
		dir: t.TempDir(), recs: map[string]*record.Record{}, gone: map[string]chan struct{}{}, repaired: make(chan string, 100),
		supervise: bootMachine,
	}
}

// sendJSON, sendBytes and closeConn ignore errors: if a fake supervisor fails to send
// or to close, the test's client reports it.
func sendJSON(c *frames.Conn, kind frames.Kind, v any)     { _ = c.SendJSON(kind, v) }
func sendBytes(c *frames.Conn, kind frames.Kind, b []byte) { _ = c.Send(kind, b) }
func closeConn(c io.Closer)                                { _ = c.Close() }

// bootMachine serves the stream of a start that succeeds.
func bootMachine(_ context.Context, _ string, c *frames.Conn) {
	sendJSON(c, frames.Event, api.Event{Phase: "disk made"})
	sendJSON(c, frames.Event, api.Event{Ready: true})
	closeConn(c)
}

func (f *fakeMachines) add(id, name string, state record.State) *record.Record {
	f.mu.Lock()
	defer f.mu.Unlock()
	rec := &record.Record{
		ID: id, Config: spec.Config{Name: name}, State: state, Created: time.Now().UTC(), ImageName: "app",
		Plan: bootplan.Plan{Main: &guest.Command{Args: []string{"/bin/app"}}},
	}
	f.recs[id], f.gone[id] = rec, make(chan struct{})
	return rec
}

// note adds a call to calls. The caller holds mu.
func (f *fakeMachines) note(format string, args ...any) {
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
}

func (f *fakeMachines) called() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.calls, ", ")
}

func (f *fakeMachines) Create(ctx context.Context, o machine.Options) (*record.Record, []string, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	if o.CPUs < 0 {
		return nil, nil, &api.Error{Code: api.CodeInvalid, Message: "no processors"}
	}
	f.mu.Lock()
	id := fmt.Sprintf("%012x", len(f.recs)+0xabc)
	for _, rec := range f.recs {
		if rec.Config.Name == o.Name {
			f.mu.Unlock()
			return nil, nil, fmt.Errorf("machine %s: %w", o.Name, record.ErrNameTaken)
		}
	}
	f.note("create %s", o.Name)
	f.mu.Unlock()
	rec := f.add(id, o.Name, record.StateCreated)
	rec.Config, rec.ImageName, rec.Remove, rec.Image = o.Config, o.ImageName, o.Remove, o.Image.ID
	return rec, []string{"little memory"}, nil
}

func (f *fakeMachines) Machines() (out []*record.Record, damaged []error, err error) {
	if f.panics {
		panic("no machines")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, rec := range f.recs {
		out = append(out, new(*rec))
	}
	return out, nil, nil
}

func (f *fakeMachines) Find(ref string) (*record.Record, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, rec := range f.recs {
		if rec.Config.Name == ref || ref != "" && strings.HasPrefix(rec.ID, ref) {
			return new(*rec), nil
		}
	}
	return nil, fmt.Errorf("machine %s: %w", ref, record.ErrNotFound)
}

func (f *fakeMachines) Rename(_ context.Context, id, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note("rename %s %s", f.recs[id].Config.Name, name)
	f.recs[id].Config.Name = name
	return nil
}

func (f *fakeMachines) Remove(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	rec := f.recs[id]
	if rec == nil {
		return record.ErrNotFound
	}
	if rec.State == record.StateRunning {
		return fmt.Errorf("machine %s: %w", rec.Config.Name, record.ErrRunning)
	}
	f.note("remove %s", rec.Config.Name)
	delete(f.recs, id)
	return nil
}

func (f *fakeMachines) Prune(_ context.Context, keep func(*record.Record) bool) (ids []string, freed int64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, rec := range f.recs {
		if rec.State != record.StateRunning && !keep(rec) {
			ids = append(ids, id)
			delete(f.recs, id)
		}
	}
	return ids, 7, nil
}

func (f *fakeMachines) Reconcile(ctx context.Context) (repair.Report, error) {
	if f.reconcile != nil {
		return f.reconcile(ctx)
	}
	return repair.Report{}, nil
}

func (f *fakeMachines) RepairMachine(_ context.Context, id string) (restart bool, err error) {
	f.repaired <- id
	_, running := f.supervisorEnd(id)
	f.mu.Lock()
	defer f.mu.Unlock()
	rec := f.recs[id]
	return rec != nil && !running && rec.Config.Restart.Policy == spec.RestartAlways && !rec.Stopped, nil
}

// awaitRepair waits until RepairMachine has been called with the ID.
func awaitRepair(f *fakeMachines, id string) {
	for <-f.repaired != id {
		continue // the ID of another machine
	}
}

func (f *fakeMachines) FindID(ref string) (string, error) {
	rec, err := f.Find(ref)
	if err != nil {
		return "", err
	}
	return rec.ID, nil
}

func (f *fakeMachines) SupervisorPID(*record.Record) int { return os.Getpid() }

func (f *fakeMachines) Run(ctx context.Context, o machine.Options, l control.Launch) (*record.Record, []string, *frames.Conn, error) {
	l.First = true
	rec, warnings, err := f.Create(ctx, o)
	if err != nil {
		return nil, nil, nil, err
	}
	conn, err := f.Start(ctx, rec.ID, l)
	return rec, warnings, conn, err
}

func (f *fakeMachines) Folder(id string) string { return filepath.Join(f.dir, "machines", id) }
func (f *fakeMachines) Runtime() string         { return f.dir }

// streamTo returns one end of a connection and passes the other end to serve.
func streamTo(serve func(*frames.Conn)) *frames.Conn {
	a, b := net.Pipe()
	go serve(frames.New(b))
	return frames.New(a)
}

func (f *fakeMachines) Start(ctx context.Context, id string, l control.Launch) (*frames.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.recs[id].State == record.StateRunning {
		return nil, fmt.Errorf("machine %s: %w", f.recs[id].Config.Name, record.ErrRunning)
	}
	f.launch = l
	f.note("start %s", f.recs[id].Config.Name)
	f.recs[id].State, f.gone[id] = record.StateRunning, make(chan struct{})
	return streamTo(func(c *frames.Conn) { f.supervise(context.WithoutCancel(ctx), id, c) }), nil
}

// endSupervisor ends the supervisor of a machine.
func (f *fakeMachines) endSupervisor(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if rec := f.recs[id]; rec != nil && rec.State == record.StateRunning {
		rec.State = record.StateExited
		close(f.gone[id])
	}
}

func (f *fakeMachines) Stop(ctx context.Context, id string, grace time.Duration) error {
	if f.stop != nil {
		if err := f.stop(ctx, id); err != nil {
			return err
		}
	}
	f.mu.Lock()
	f.note("stop %s %v", f.recs[id].Config.Name, grace)
	f.mu.Unlock()
	f.endSupervisor(id)
	return nil
}

func (f *fakeMachines) Kill(_ context.Context, id, signal string) error {
	f.mu.Lock()
	rec := f.recs[id]
	if rec.State != record.StateRunning {
		f.mu.Unlock()
		return fmt.Errorf("machine %s: %w", rec.Config.Name, record.ErrNotRunning)
	}
	f.note("kill %s %q", rec.Config.Name, signal)
	f.mu.Unlock()
	f.endSupervisor(id)
	return nil
}

// supervisorEnd returns a channel that is closed at the end of the machine's
// supervisor, and whether the supervisor runs.
func (f *fakeMachines) supervisorEnd(id string) (chan struct{}, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	rec := f.recs[id]
	return f.gone[id], rec != nil && rec.State == record.StateRunning
}

func (f *fakeMachines) Wait(ctx context.Context, id string) (api.Exit, error) {
	gone, running := f.supervisorEnd(id)
	if running {
		select {
		case <-gone:
		case <-ctx.Done():
			return api.Exit{}, ctx.Err()
		}
	}
	return api.Exit{Code: 3}, nil
}

func (f *fakeMachines) WaitGone(ctx context.Context, id string) error {
	_, err := f.Wait(ctx, id)
	return err
}

// openStream returns a stream to the machine's supervisor.
func openStream(f *fakeMachines, route, id string, req any) (*frames.Conn, error) {
	if _, running := f.supervisorEnd(id); !running {
		return nil, fmt.Errorf("machine %s: %w", id, record.ErrNotRunning)
	}
	serve := func(c *frames.Conn) { f.serve(route, req, c) }
	if f.takes {
		return passTo(serve)
	}
	return streamTo(serve), nil
}

// passTo returns a connection to a supervisor that takes over a client and passes it
// to serve.
func passTo(serve func(*frames.Conn)) (*frames.Conn, error) {
	a, file, err := control.StartPair()
	if err != nil {
		return nil, err
	}
	b, err := net.FileConn(file)
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	go func() {
		defer closeConn(b)
		sendJSON(frames.New(b), frames.Answer, struct{}{})
		if client, read, err := control.TakeClient(b); err == nil {
			serve(frames.NewBuffered(client, bufio.NewReader(io.MultiReader(bytes.NewReader(read), client))))
		}
	}()
	return frames.New(a), nil
}

func (f *fakeMachines) Exec(_ context.Context, id string, r api.ExecRequest) (*frames.Conn, error) {
	return openStream(f, "exec", id, r)
}

func (f *fakeMachines) Attach(_ context.Context, id string, r api.AttachRequest) (*frames.Conn, error) {
	return openStream(f, "attach", id, r)
}

// HoldFiles works for a machine that was started for its files. The end of the
// hold ends the machine.
func (f *fakeMachines) HoldFiles(_ context.Context, id string) (io.Closer, error) {
	if _, running := f.supervisorEnd(id); !running {
		return nil, record.ErrNotRunning
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note("hold %s", f.recs[id].Config.Name)
	return closer(func() { f.endSupervisor(id) }), nil
}

type closer func()

func (c closer) Close() error { c(); return nil }

func (f *fakeMachines) Archive(_ context.Context, id string, r api.ArchiveRequest) (*frames.Conn, error) {
	return openStream(f, "archive", id, r)
}

func (f *fakeMachines) Dial(context.Context, *record.Record) (net.Conn, error) {
	a, b := net.Pipe()
	go f.agent(b)
	return a, nil
}

func (f *fakeMachines) Stats(_ context.Context, id string) (api.Stats, error) {
	if _, running := f.supervisorEnd(id); !running {
		return api.Stats{}, record.ErrNotRunning
	}
	return api.Stats{ID: id, RSS: 5}, nil
}

func (f *fakeMachines) Logs(_ context.Context, _ string, _ machine.LogOptions, emit func(api.LogLine) error) error {
	for _, line := range f.logLines {
		if err := emit(line); err != nil {
			return err
		}
	}
	return f.logErr
}

func (f *fakeMachines) Paused(context.Context, string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.paused
}
