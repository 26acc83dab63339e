package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/machine"
)

// A fake has machines that are records alone. What a supervisor would do is
// done by its functions.
type fake struct {
	dir string

	mu      sync.Mutex
	recs    map[string]*machine.Record
	calls   []string // what changed something, in order
	launch  machine.Launch
	gone    map[string]chan struct{} // closed when a machine's supervisor ends
	settled chan string              // IDs that Settle was called with

	supervise func(ctx context.Context, id string, c *frames.Conn) // of a start
	serve     func(what string, req any, c *frames.Conn)           // of exec, attach and archive
	stop      func(ctx context.Context, id string) error
	reconcile func(ctx context.Context) (machine.Report, error)
	logLines  []api.LogLine
	logErr    error
	agent     func(net.Conn)
	panics    bool
}

func newFake(t *testing.T) *fake {
	t.Helper()
	return &fake{
		dir: t.TempDir(), recs: map[string]*machine.Record{}, gone: map[string]chan struct{}{}, settled: make(chan string, 100),
		supervise: comesUp,
	}
}

// What a fake supervisor cannot say or close its client misses: the test sees
// that there.
func tell(c *frames.Conn, kind frames.Kind, v any)   { _ = c.SendJSON(kind, v) }
func put(c *frames.Conn, kind frames.Kind, b []byte) { _ = c.Send(kind, b) }
func hangUp(c io.Closer)                             { _ = c.Close() }

// comesUp is a machine without any trouble.
func comesUp(_ context.Context, _ string, c *frames.Conn) {
	tell(c, frames.Event, api.Event{Phase: "disk made"})
	tell(c, frames.Event, api.Event{Ready: true})
	hangUp(c)
}

func (f *fake) add(id, name string, state machine.State) *machine.Record {
	f.mu.Lock()
	defer f.mu.Unlock()
	rec := &machine.Record{
		ID: id, Config: machine.Config{Name: name}, State: state, Created: time.Now().UTC(), ImageName: "app",
		Plan: machine.Plan{Main: &guest.Command{Args: []string{"/bin/app"}}},
	}
	f.recs[id], f.gone[id] = rec, make(chan struct{})
	return rec
}

func (f *fake) note(format string, args ...any) {
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
}

func (f *fake) called() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.calls, ", ")
}

func (f *fake) Create(ctx context.Context, o machine.Options) (*machine.Record, []string, error) {
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
			return nil, nil, fmt.Errorf("machine %s: %w", o.Name, machine.ErrNameTaken)
		}
	}
	f.note("create %s", o.Name)
	f.mu.Unlock()
	rec := f.add(id, o.Name, machine.StateCreated)
	rec.Config, rec.ImageName, rec.Remove, rec.Image = o.Config, o.ImageName, o.Remove, o.Image.ID
	return rec, []string{"little memory"}, nil
}

func (f *fake) Machines() (out []*machine.Record, damaged []error, err error) {
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

func (f *fake) Find(ref string) (*machine.Record, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, rec := range f.recs {
		if rec.Config.Name == ref || ref != "" && strings.HasPrefix(rec.ID, ref) {
			return new(*rec), nil
		}
	}
	return nil, fmt.Errorf("machine %s: %w", ref, machine.ErrNotFound)
}

func (f *fake) Rename(_ context.Context, id, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note("rename %s %s", f.recs[id].Config.Name, name)
	f.recs[id].Config.Name = name
	return nil
}

func (f *fake) Remove(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	rec := f.recs[id]
	if rec == nil {
		return machine.ErrNotFound
	}
	if rec.State == machine.StateRunning {
		return fmt.Errorf("machine %s: %w", rec.Config.Name, machine.ErrRunning)
	}
	f.note("remove %s", rec.Config.Name)
	delete(f.recs, id)
	return nil
}

func (f *fake) Prune(_ context.Context, keep func(*machine.Record) bool) (ids []string, freed int64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, rec := range f.recs {
		if rec.State != machine.StateRunning && !keep(rec) {
			ids = append(ids, id)
			delete(f.recs, id)
		}
	}
	return ids, 7, nil
}

func (f *fake) Reconcile(ctx context.Context) (machine.Report, error) {
	if f.reconcile != nil {
		return f.reconcile(ctx)
	}
	return machine.Report{}, nil
}

func (f *fake) Settle(_ context.Context, id string) (restart bool, err error) {
	f.settled <- id
	_, running := f.ending(id)
	f.mu.Lock()
	defer f.mu.Unlock()
	rec := f.recs[id]
	return rec != nil && !running && rec.Config.Restart.Policy == machine.RestartAlways && !rec.Stopped, nil
}

// awaitSettled waits until Settle has been called with the ID.
func (f *fake) awaitSettled(id string) {
	for <-f.settled != id {
		continue // another machine's
	}
}

func (f *fake) FindID(ref string) (string, error) {
	rec, err := f.Find(ref)
	if err != nil {
		return "", err
	}
	return rec.ID, nil
}

func (f *fake) Supervisor(*machine.Record) int { return os.Getpid() }

func (f *fake) Run(ctx context.Context, o machine.Options, l machine.Launch) (*machine.Record, []string, *frames.Conn, error) {
	l.First = true
	rec, warnings, err := f.Create(ctx, o)
	if err != nil {
		return nil, nil, nil, err
	}
	conn, err := f.Start(ctx, rec.ID, l)
	return rec, warnings, conn, err
}

func (f *fake) Folder(id string) string { return filepath.Join(f.dir, "machines", id) }
func (f *fake) Runtime() string         { return f.dir }

// streamTo returns one end of a connection, whose other end do has.
func streamTo(do func(*frames.Conn)) *frames.Conn {
	a, b := net.Pipe()
	go do(frames.New(b))
	return frames.New(a)
}

func (f *fake) Start(ctx context.Context, id string, l machine.Launch) (*frames.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.recs[id].State == machine.StateRunning {
		return nil, fmt.Errorf("machine %s: %w", f.recs[id].Config.Name, machine.ErrRunning)
	}
	f.launch = l
	f.note("start %s", f.recs[id].Config.Name)
	f.recs[id].State, f.gone[id] = machine.StateRunning, make(chan struct{})
	return streamTo(func(c *frames.Conn) { f.supervise(context.WithoutCancel(ctx), id, c) }), nil
}

// end is the end of a machine's supervisor.
func (f *fake) end(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if rec := f.recs[id]; rec != nil && rec.State == machine.StateRunning {
		rec.State = machine.StateExited
		close(f.gone[id])
	}
}

func (f *fake) Stop(ctx context.Context, id string, grace time.Duration) error {
	if f.stop != nil {
		if err := f.stop(ctx, id); err != nil {
			return err
		}
	}
	f.mu.Lock()
	f.note("stop %s %v", f.recs[id].Config.Name, grace)
	f.mu.Unlock()
	f.end(id)
	return nil
}

func (f *fake) Kill(_ context.Context, id, signal string) error {
	f.mu.Lock()
	rec := f.recs[id]
	if rec.State != machine.StateRunning {
		f.mu.Unlock()
		return fmt.Errorf("machine %s: %w", rec.Config.Name, machine.ErrNotRunning)
	}
	f.note("kill %s %q", rec.Config.Name, signal)
	f.mu.Unlock()
	f.end(id)
	return nil
}

func (f *fake) ending(id string) (chan struct{}, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	rec := f.recs[id]
	return f.gone[id], rec != nil && rec.State == machine.StateRunning
}

func (f *fake) Wait(ctx context.Context, id string) (api.Exit, error) {
	gone, running := f.ending(id)
	if running {
		select {
		case <-gone:
		case <-ctx.Done():
			return api.Exit{}, ctx.Err()
		}
	}
	return api.Exit{Code: 3}, nil
}

func (f *fake) WaitGone(ctx context.Context, id string) error {
	_, err := f.Wait(ctx, id)
	return err
}

func (f *fake) ask(what, id string, req any) (*frames.Conn, error) {
	if _, running := f.ending(id); !running {
		return nil, fmt.Errorf("machine %s: %w", id, machine.ErrNotRunning)
	}
	return streamTo(func(c *frames.Conn) { f.serve(what, req, c) }), nil
}

func (f *fake) Exec(_ context.Context, id string, r api.ExecRequest) (*frames.Conn, error) {
	return f.ask("exec", id, r)
}

func (f *fake) Attach(_ context.Context, id string, r api.AttachRequest) (*frames.Conn, error) {
	return f.ask("attach", id, r)
}

func (f *fake) Archive(_ context.Context, id string, r api.ArchiveRequest) (*frames.Conn, error) {
	return f.ask("archive", id, r)
}

func (f *fake) Dial(context.Context, *machine.Record) (net.Conn, error) {
	a, b := net.Pipe()
	go f.agent(b)
	return a, nil
}

func (f *fake) Stats(_ context.Context, id string) (api.Stats, error) {
	if _, running := f.ending(id); !running {
		return api.Stats{}, machine.ErrNotRunning
	}
	return api.Stats{ID: id, RSS: 5}, nil
}

func (f *fake) Logs(_ context.Context, _ string, _ machine.LogOptions, emit func(api.LogLine) error) error {
	for _, line := range f.logLines {
		if err := emit(line); err != nil {
			return err
		}
	}
	return f.logErr
}

// stock returns stores with the image app and the default kernel.
func stock(t testing.TB) (*store.Store, *kernel.Store) {
	t.Helper()
	root := t.TempDir()
	images, err := store.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	kernels, err := kernel.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	img := &store.Image{
		Schema: store.Schema, ID: digest.Digest("sha256:" + strings.Repeat("a1", 32)), Names: []string{"docker.io/library/app:latest"},
		Config: store.Config{Cmd: []string{"/bin/app"}}, Disk: store.Disk{File: "a.ext4", Size: 3},
	}
	disk := filepath.Join(root, "tmp", "disk")
	if err := os.WriteFile(disk, []byte("ext"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := images.Put(img, disk); err != nil {
		t.Fatal(err)
	}
	addKernel(t, filepath.Join(root, "kernels"))
	return images, kernels
}

func addKernel(t testing.TB, dir string) {
	t.Helper()
	m := kernel.Manifest{Schema: kernel.Schema, Names: []string{kernel.DefaultName}, Release: "6.1.0", Arch: "amd64"}
	content, err := json.Marshal(struct {
		Release, Arch           string
		Kernel, Config, Modules digest.Digest
	}{Release: m.Release, Arch: m.Arch})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	m.ID = digest.Digest("sha256:" + hex.EncodeToString(sum[:]))
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(dir, m.ID.Hex())
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "manifest.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A daemonUnderTest runs until its test ends.
type daemonUnderTest struct {
	*api.Client
	server *server
	ended  chan error // serveOn's result
	stop   func()
}

// begin serves f on a socket.
func begin(t *testing.T, f machines, change ...func(*Config)) *daemonUnderTest {
	t.Helper()
	c := Config{Machines: f, Version: "v1-test", DataRoot: "/data", Supervisor: []string{"banger", "supervise"},
		Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	c.Images, c.Kernels = stock(t)
	for _, do := range change {
		do(&c)
	}
	c = c.complete()
	listener, lock, err := Listen(t.Context(), f.Runtime())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	d := &daemonUnderTest{
		Client: &api.Client{Socket: SocketPath(f.Runtime()), Program: "test"}, server: newServer(c), ended: make(chan error, 1), stop: stop,
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.ended <- d.server.serveOn(ctx, listenPeers(listener, c.Connections, c.Log))
	}()
	t.Cleanup(func() {
		stop()
		<-done
		if err := lock.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}
