package supervisor

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/base/unixsocket"
	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/guest/client"
	"github.com/banger-vm/banger/internal/machine/bootplan"
	"github.com/banger-vm/banger/internal/machine/control"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/spec"
)

// maxRequests bounds the connections to one supervisor.
const maxRequests = 256

// A controlServer serves the control socket.
type controlServer struct {
	v        *supervisor
	listener *net.UnixListener
	clients  sync.WaitGroup // the goroutines of all connections

	mu      sync.Mutex
	conns   map[net.Conn]bool
	closing bool
}

// listen opens the control socket and serves it.
func (v *supervisor) listen(ctx context.Context) (*controlServer, error) {
	listener, err := unixsocket.In(v.journal.Dir.Runtime, control.SocketFile, func(path string) (*net.UnixListener, error) {
		return net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	})
	if err != nil {
		return nil, fmt.Errorf("listen for requests: %w", err)
	}
	listener.SetUnlinkOnClose(false) // the folder is removed as a whole
	d := &controlServer{v: v, listener: listener, conns: map[net.Conn]bool{}}
	d.clients.Go(func() {
		_ = unixsocket.Serve(unixsocket.Limit(listener, maxRequests, nil), func(conn net.Conn) { d.serve(ctx, conn) }) // close ends it
	})
	return d, nil
}

func (d *controlServer) add(conn net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conns[conn] = true
	if d.closing {
		limitWrites(conn)
	}
}

func (d *controlServer) remove(conn net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.conns, conn)
}

// close waits for the clients, and only a moment for those that do not read.
func (d *controlServer) close() error {
	err := d.listener.Close()
	d.mu.Lock()
	d.closing = true
	for conn := range d.conns {
		limitWrites(conn)
		conn.SetReadDeadline(time.Now())
	}
	d.mu.Unlock()
	d.clients.Wait()
	return err
}

// serve serves the request of one connection.
func (d *controlServer) serve(ctx context.Context, raw net.Conn) {
	d.add(raw)
	defer d.remove(raw)
	conn := frames.New(raw)
	defer conn.Close()
	const patience = 10 * time.Second
	raw.SetReadDeadline(time.Now().Add(patience))
	frame, err := conn.Next()
	if err != nil || frame.Kind != frames.Request {
		return
	}
	var r control.Request
	err = frame.JSON(&r)
	if f := d.v.files; f != nil && err == nil {
		if err = f.enter(&r); err == nil {
			defer f.leave()
		} else {
			err = fmt.Errorf("machine %s: %w", d.v.journal.Record().Config.Name, err)
		}
	}
	switch {
	case err != nil:
		conn.SendJSON(frames.Error, control.WireError(err)) //nolint:errcheck // the client may be gone
	case r.Pass:
		d.servePassed(ctx, raw, conn, &r)
	default:
		raw.SetReadDeadline(time.Time{})
		d.serveRequest(ctx, &subscriber{conn: conn, raw: raw}, &r)
	}
}

// servePassed serves a request whose client is passed on by the daemon, so that
// the end of the daemon does not end it. conn stays open meanwhile: it counts
// toward maxRequests.
func (d *controlServer) servePassed(ctx context.Context, raw net.Conn, conn *frames.Conn, r *control.Request) {
	if conn.SendJSON(frames.Answer, struct{}{}) != nil {
		return // the daemon is gone, and its client too
	}
	passed, read, err := control.TakeClient(raw)
	if err != nil {
		return
	}
	d.add(passed)
	defer d.remove(passed)
	client := frames.NewBuffered(passed, bufio.NewReader(io.MultiReader(bytes.NewReader(read), passed)))
	defer client.Close()
	d.serveRequest(ctx, &subscriber{conn: client, raw: passed}, r)
}

// serveRequest answers a request, with an Error frame if it fails.
func (d *controlServer) serveRequest(ctx context.Context, s *subscriber, r *control.Request) {
	if err := d.answer(ctx, s, r); err != nil {
		s.conn.SendJSON(frames.Error, control.WireError(err)) //nolint:errcheck // the client may be gone
	}
}

// answer serves one request.
func (d *controlServer) answer(ctx context.Context, s *subscriber, r *control.Request) error {
	switch {
	case r.Stop != nil:
		d.v.requestStop(stoppedByUser, time.Duration(*r.Stop)*time.Millisecond)
		return d.wait(s)
	case r.Kill != nil:
		return d.signal(s, *r.Kill)
	case r.Wait:
		return d.wait(s)
	case r.Rename != "":
		err := d.v.journal.Update(func(rec *record.Record) { rec.Config.Name = r.Rename })
		return errors.Join(err, s.conn.SendJSON(frames.Answer, struct{}{}))
	case r.Stats:
		stats, err := d.v.stats(ctx)
		if err != nil {
			return err
		}
		return s.conn.SendJSON(frames.Answer, stats)
	case r.Status:
		return s.conn.SendJSON(frames.Answer, control.Status{Paused: d.v.pauseReason()})
	case r.HoldFiles:
		return d.holdFiles(s)
	case r.ReleaseFiles:
		return s.conn.SendJSON(frames.Answer, struct{}{})
	case r.Exec != nil:
		return d.exec(ctx, s, r.Exec)
	case r.Attach != nil:
		return d.attach(s, r.Attach)
	case r.Archive != nil:
		return d.archive(ctx, s, r.Archive)
	}
	return spec.Errorf("the request is empty")
}

// wait sends the machine's exit code when it has ended.
func (d *controlServer) wait(s *subscriber) error {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		s.conn.Next() //nolint:errcheck // the client sends nothing more: this is the end of the connection
	}()
	select {
	case <-d.v.loop.done:
	case <-gone:
		return nil
	}
	return s.conn.SendJSON(frames.Exit, d.v.loop.lastExit())
}

// holdFiles keeps a machine that booted for its files up until the client
// disconnects.
func (d *controlServer) holdFiles(s *subscriber) error {
	if d.v.files == nil {
		return record.ErrRunning
	}
	if _, err := d.v.loop.running(); err != nil {
		return err
	}
	err := s.conn.SendJSON(frames.Answer, struct{}{})
	if err == nil {
		s.conn.Next() //nolint:errcheck // the client sends nothing more: this is the end of the connection
	}
	return err
}

// signal sends the main command a signal. KILL ends the machine.
func (d *controlServer) signal(s *subscriber, name string) error {
	n, err := guest.ParseSignal(spec.OrDefault(name, "KILL"))
	if err != nil {
		return spec.Errorf("%v", err)
	}
	const sigkill = 9
	if n == sigkill {
		d.v.requestKill()
		return d.wait(s)
	}
	m, err := d.v.loop.running()
	if err != nil {
		return err
	}
	if err := m.pauseError(0); err != nil {
		return err
	}
	p := d.v.loop.mainCommand()
	if p == nil {
		return record.ErrNotRunning
	}
	if err := p.Signal(guest.SignalName(n)); err != nil {
		return err
	}
	return s.conn.SendJSON(frames.Answer, struct{}{})
}

// exec runs a further command for a client.
func (d *controlServer) exec(ctx context.Context, s *subscriber, r *api.ExecRequest) error {
	m, err := d.v.loop.running()
	if err != nil {
		return err
	}
	switch {
	case len(r.Args) == 0:
		return spec.Errorf("no command is given")
	case r.Detach && r.Stdin:
		return spec.Errorf("a detached command cannot have standard input")
	}
	command := m.record.Exec
	command.Args, command.Stdin = r.Args, r.Stdin
	command.User, command.Dir = spec.OrDefault(r.User, command.User), spec.OrDefault(r.Dir, command.Dir)
	command.Env = bootplan.MergeEnv(command.Env, r.Env)
	if r.Detach {
		ctx, cancel := m.responsive(ctx)
		defer cancel(nil)
		p, err := m.agent.Start(ctx, command, client.Stdio{TTY: terminal(r.TTY)})
		if err != nil {
			return m.explain(ctx, err)
		}
		d.clients.Go(func() { p.Wait() }) //nolint:errcheck // no client waits for the exit code
		return s.conn.SendJSON(frames.Exit, api.Exit{})
	}
	return serveProcess(ctx, m, s, r.Stdin, r.TTY, func(ctx context.Context, streams client.Stdio) (*client.Process, error) {
		return m.agent.Start(ctx, command, streams)
	})
}

// archive copies files for a client.
func (d *controlServer) archive(ctx context.Context, s *subscriber, r *api.ArchiveRequest) error {
	m, err := d.v.loop.running()
	if err != nil {
		return err
	}
	files := guest.Archive{Path: r.Path, Op: guest.ArchiveOp(r.Op), FollowLink: r.FollowLink, KeepOwners: r.KeepOwners, Sparse: r.Sparse}
	// No program of the machine needs its disk afterwards: a crash of the host
	// must not lose the copy.
	files.Sync = d.v.files != nil
	return serveProcess(ctx, m, s, files.Op == guest.ArchivePut, nil, func(ctx context.Context, streams client.Stdio) (*client.Process, error) {
		return m.agent.Archive(ctx, files, streams)
	})
}

// errInterrupted ends a command that has not begun when its client asks for an end.
var errInterrupted = errors.New("interrupted before the command began")

// serveProcess connects a client with the process that start starts, and sends how
// the process ended. A client that disconnects hangs the process up. If the guest
// does not answer, a client that asks for an end gets the reason.
func serveProcess(ctx context.Context, m *instance, s *subscriber, stdin bool, tty *api.TTY,
	start func(context.Context, client.Stdio) (*client.Process, error),
) error {
	streams := client.Stdio{Out: s.conn.Writer(frames.Stdout), Err: s.conn.Writer(frames.Stderr)}
	var in *io.PipeWriter
	if stdin {
		streams.In, in = io.Pipe()
	}
	streams.TTY = terminal(tty)
	starting, abort := m.responsive(ctx)
	defer abort(nil)
	var process atomic.Pointer[client.Process]
	var receiving sync.WaitGroup
	r := receiver{conn: s.conn, input: func() *io.PipeWriter { return in }, process: process.Load}
	r.orphan = func(name string) {
		if asksForEnd(name) {
			abort(errInterrupted)
		}
	}
	r.signalled = func(name string) {
		if asksForEnd(name) {
			receiving.Go(func() { reportSilence(ctx, m, s) })
		}
	}
	receiving.Go(func() {
		r.receive(&receiving)
		abort(errInterrupted)
		if p := process.Load(); p != nil {
			p.HangUp() // the process has ended, or its client has disconnected
		}
	})
	p, err := start(starting, streams)
	if err == nil {
		process.Store(p)
		if err = s.conn.SendJSON(frames.Event, api.Event{Ready: true}); err != nil || starting.Err() != nil {
			p.HangUp()
		}
		var exit client.Exit
		if exit, err = p.Wait(); err == nil {
			err = s.conn.SendJSON(frames.Exit, api.Exit{Code: exit.Code, Signal: exit.Signal})
		} else {
			err = s.conn.SendJSON(frames.Error, control.WireError(m.explain(ctx, err)))
		}
	} else {
		err = s.conn.SendJSON(frames.Error, control.WireError(m.explain(starting, err)))
	}
	if in != nil {
		in.Close()
	}
	err = errors.Join(err, s.conn.Close())
	receiving.Wait()
	return err
}

// reportSilence ends a client's connection with an error if the guest does not
// answer: it cannot end the client's process then.
func reportSilence(ctx context.Context, m *instance, s *subscriber) {
	if err := m.probe(ctx); err != nil {
		s.conn.SendJSON(frames.Error, control.WireError(err)) //nolint:errcheck // the client may be gone
		s.conn.Close()
	}
}

// asksForEnd reports whether a signal asks a command to end.
func asksForEnd(name string) bool {
	return slices.Contains([]string{"INT", "TERM", "HUP", "QUIT"}, strings.TrimPrefix(name, "SIG"))
}

// attach connects a client with the main command until the machine ends or the
// client disconnects.
func (d *controlServer) attach(s *subscriber, r *api.AttachRequest) error {
	m, err := d.v.loop.running()
	if err != nil {
		return err
	}
	s.output, s.console = !r.Console, r.Console
	if r.Console && !m.hasMain() {
		s.output, s.console = true, false // the console is the output of the image's init
	}
	d.v.fanOut.join(s)
	defer d.v.fanOut.leave(s)
	if err := s.conn.SendJSON(frames.Event, api.Event{Ready: true}); err != nil {
		return nil // the client is gone
	}
	d.serveSubscriber(s, r.Stdin)
	return nil
}

// serveSubscriber passes the input, signals and sizes of a subscriber on until
// it disconnects. If the first start of a new machine waits for the subscriber
// that disconnects, the machine ends.
func (d *controlServer) serveSubscriber(s *subscriber, stdin bool) {
	defer d.v.fanOut.leave(s)
	r := receiver{conn: s.conn, input: func() *io.PipeWriter { return nil }, process: d.v.loop.mainCommand, orphan: d.signalInit}
	r.signalled = func(name string) {
		if asksForEnd(name) {
			d.clients.Go(d.stopSilent)
		}
	}
	if stdin {
		r.input = d.v.loop.mainInput
		// As in docker, a terminal may attach again, and a pipe may not.
		r.once = s.events && !d.v.journal.Record().Config.TTY
	}
	r.receive(&d.clients)
	if s.events && d.v.launch.First && !d.v.loop.hasRun() {
		d.v.requestKill()
	}
}

// stopSilent stops a machine whose guest does not answer: it cannot pass the signal
// of a user on to the main command.
func (d *controlServer) stopSilent() {
	m, err := d.v.loop.running()
	if err == nil && m.probe(context.Background()) != nil {
		d.v.requestStop(stoppedByUser, control.StopGrace)
	}
}

// signalInit stops a machine whose image's init is all that runs, if the signal
// asks for an end.
func (d *controlServer) signalInit(name string) {
	m, err := d.v.loop.running()
	if err == nil && !m.hasMain() && asksForEnd(name) {
		d.v.requestStop(stoppedByUser, control.StopGrace)
	}
}
