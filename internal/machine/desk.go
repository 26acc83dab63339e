package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/base/unixsocket"
	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/guest/client"
)

// controlFile is the socket in a machine's runtime folder at which its
// supervisor serves the user's other processes, as a connection for each
// request: a Request frame, then what belongs to it.
const controlFile = "control.sock"

// A request is what a supervisor is asked for. One of the fields is set.
type request struct {
	Stop    *int64              `json:"stop,omitempty"` // the grace in milliseconds
	Kill    *string             `json:"kill,omitempty"` // the signal
	Wait    bool                `json:"wait,omitempty"`
	Rename  string              `json:"rename,omitempty"`
	Stats   bool                `json:"stats,omitempty"`
	Exec    *api.ExecRequest    `json:"exec,omitempty"`
	Attach  *api.AttachRequest  `json:"attach,omitempty"`
	Archive *api.ArchiveRequest `json:"archive,omitempty"`
}

// maxRequests bounds the connections to one supervisor.
const maxRequests = 256

// A desk serves the control socket.
type desk struct {
	v        *supervisor
	listener *net.UnixListener
	visitors sync.WaitGroup
	places   chan struct{}

	mu    sync.Mutex
	conns map[net.Conn]bool
	over  bool
}

func (v *supervisor) openDesk(ctx context.Context) (*desk, error) {
	listener, err := unixsocket.In(v.journal.dir.runtime, controlFile, func(path string) (*net.UnixListener, error) {
		return net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	})
	if err != nil {
		return nil, fmt.Errorf("listen for requests: %w", err)
	}
	listener.SetUnlinkOnClose(false) // the folder goes as a whole
	d := &desk{
		v: v, listener: listener, places: make(chan struct{}, maxRequests), conns: map[net.Conn]bool{},
	}
	d.visitors.Go(func() { d.serve(ctx) })
	return d, nil
}

func (d *desk) serve(ctx context.Context) {
	for {
		conn, err := d.listener.AcceptUnix()
		if err != nil {
			return // closed
		}
		select {
		case d.places <- struct{}{}:
			d.visitors.Go(func() {
				defer func() { <-d.places }()
				d.visit(ctx, conn)
			})
		default:
			conn.Close() //nolint:errcheck // refused: there are too many
		}
	}
}

func (d *desk) admit(conn net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conns[conn] = true
	if d.over {
		limitWrites(conn)
	}
}

func (d *desk) dismiss(conn net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.conns, conn)
}

// close waits for the visitors, a moment for those who do not read.
func (d *desk) close() error {
	err := d.listener.Close()
	d.mu.Lock()
	d.over = true
	for conn := range d.conns {
		limitWrites(conn)
		conn.SetReadDeadline(time.Now())
	}
	d.mu.Unlock()
	d.visitors.Wait()
	return err
}

// visit serves one request.
func (d *desk) visit(ctx context.Context, raw net.Conn) {
	d.admit(raw)
	defer d.dismiss(raw)
	conn := frames.New(raw)
	defer conn.Close()
	const patience = 10 * time.Second
	raw.SetReadDeadline(time.Now().Add(patience))
	frame, err := conn.Next()
	if err != nil || frame.Kind != frames.Request {
		return
	}
	var r request
	if err = frame.JSON(&r); err == nil {
		raw.SetReadDeadline(time.Time{})
		err = d.answer(ctx, &audience{conn: conn, raw: raw}, &r)
	}
	if err != nil {
		conn.SendJSON(frames.Error, WireError(err)) //nolint:errcheck // whoever asked is gone
	}
}

func (d *desk) answer(ctx context.Context, a *audience, r *request) error {
	switch {
	case r.Stop != nil:
		go d.v.stop(ctx, byUser, time.Duration(*r.Stop)*time.Millisecond)
		return d.wait(a)
	case r.Kill != nil:
		return d.signal(a, *r.Kill)
	case r.Wait:
		return d.wait(a)
	case r.Rename != "":
		err := d.v.journal.update(func(rec *Record) { rec.Config.Name = r.Rename })
		return errors.Join(err, a.conn.SendJSON(frames.Answer, struct{}{}))
	case r.Stats:
		stats, err := d.v.stats(ctx)
		if err != nil {
			return err
		}
		return a.conn.SendJSON(frames.Answer, stats)
	case r.Exec != nil:
		return d.exec(ctx, a, r.Exec)
	case r.Attach != nil:
		return d.attach(a, r.Attach)
	case r.Archive != nil:
		return d.archive(ctx, a, r.Archive)
	}
	return inputf("request is empty")
}

// wait sends the machine's exit code once it has ended.
func (d *desk) wait(a *audience) error {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		a.conn.Next() //nolint:errcheck // nothing more is asked for: it is the end of the connection
	}()
	select {
	case <-d.v.ended:
	case <-gone:
		return nil
	}
	return a.conn.SendJSON(frames.Exit, d.v.lastExit())
}

// signal sends the main command a signal; KILL ends the machine.
func (d *desk) signal(a *audience, name string) error {
	n, err := guest.ParseSignal(orDefault(name, "KILL"))
	if err != nil {
		return inputf("%v", err)
	}
	const sigkill = 9
	if n == sigkill {
		go d.v.kill()
		return d.wait(a)
	}
	p := d.v.command()
	if p == nil {
		return ErrNotRunning
	}
	if err := p.Signal(guest.SignalName(n)); err != nil {
		return err
	}
	return a.conn.SendJSON(frames.Answer, struct{}{})
}

// exec runs a further command for a visitor.
func (d *desk) exec(ctx context.Context, a *audience, r *api.ExecRequest) error {
	m, err := d.v.running()
	if err != nil {
		return err
	}
	switch {
	case len(r.Args) == 0:
		return inputf("no command is given")
	case r.Detach && r.Stdin:
		return inputf("a command that nobody attends to has no input")
	}
	command := m.Record.Exec
	command.Args, command.Stdin = r.Args, r.Stdin
	command.User, command.Dir = orDefault(r.User, command.User), orDefault(r.Dir, command.Dir)
	command.Env = MergeEnv(command.Env, r.Env)
	if r.Detach {
		p, err := m.agent.Start(ctx, command, client.Stdio{TTY: terminal(r.TTY)})
		if err != nil {
			return err
		}
		d.visitors.Go(func() { p.Wait() }) //nolint:errcheck // nobody wants to know
		return a.conn.SendJSON(frames.Exit, api.Exit{})
	}
	return converse(a, r.Stdin, r.TTY, func(streams client.Stdio) (*client.Process, error) {
		return m.agent.Start(ctx, command, streams)
	})
}

// archive copies files for a visitor.
func (d *desk) archive(ctx context.Context, a *audience, r *api.ArchiveRequest) error {
	m, err := d.v.running()
	if err != nil {
		return err
	}
	files := guest.Archive{Path: r.Path, Op: guest.ArchiveOp(r.Op), FollowLink: r.FollowLink, KeepOwners: r.KeepOwners}
	return converse(a, files.Op == guest.ArchivePut, nil, func(streams client.Stdio) (*client.Process, error) {
		return m.agent.Archive(ctx, files, streams)
	})
}

// converse connects a visitor with a process that start starts, and tells how
// the process ended. A visitor who goes hangs it up.
func converse(a *audience, stdin bool, tty *api.TTY, start func(client.Stdio) (*client.Process, error)) error {
	streams := client.Stdio{Out: a.conn.Writer(frames.Stdout), Err: a.conn.Writer(frames.Stderr)}
	var in *io.PipeWriter
	if stdin {
		streams.In, in = io.Pipe()
	}
	streams.TTY = terminal(tty)
	p, err := start(streams)
	if err != nil {
		return err
	}
	if err := a.conn.SendJSON(frames.Event, api.Event{Ready: true}); err != nil {
		p.HangUp()
	}
	var listening sync.WaitGroup
	l := listener{conn: a.conn, input: func() *io.PipeWriter { return in }, process: func() *client.Process { return p }}
	listening.Go(func() {
		l.listen(&listening)
		p.HangUp() // it has ended, or nobody is there for it
	})
	exit, err := p.Wait()
	if err == nil {
		err = a.conn.SendJSON(frames.Exit, api.Exit{Code: exit.Code, Signal: exit.Signal})
	} else {
		err = a.conn.SendJSON(frames.Error, WireError(err))
	}
	if in != nil {
		in.Close()
	}
	err = errors.Join(err, a.conn.Close())
	listening.Wait()
	return err
}

// attach connects a visitor with the main command until the machine ends or
// the visitor goes.
func (d *desk) attach(a *audience, r *api.AttachRequest) error {
	m, err := d.v.running()
	if err != nil {
		return err
	}
	a.output, a.console = !r.Console, r.Console
	if r.Console && !m.HasMain() {
		a.output, a.console = true, false // its console is the output
	}
	d.v.hub.join(a)
	defer d.v.hub.leave(a)
	if err := a.conn.SendJSON(frames.Event, api.Event{Ready: true}); err != nil {
		return nil // the visitor has gone
	}
	d.attend(a, r.Stdin)
	return nil
}

// attend passes on what comes from one that is attached, until it goes. With
// one that has gone while a first start waits for it, the machine ends.
func (d *desk) attend(a *audience, stdin bool) {
	defer d.v.hub.leave(a)
	l := listener{conn: a.conn, input: func() *io.PipeWriter { return nil }, process: d.v.command, orphan: d.signalInit}
	if stdin {
		l.input = d.v.input
		// As docker has it: a terminal may come back, a pipe does not.
		l.once = a.events && !d.v.journal.record().Config.TTY
	}
	l.listen(&d.visitors)
	if a.events && d.v.launch.First && !d.v.booted() {
		d.v.kill()
	}
}

// signalInit stops a machine whose image's init is all that runs, by the
// signals that ask for an end.
func (d *desk) signalInit(name string) {
	m, err := d.v.running()
	if err == nil && !m.HasMain() && slices.Contains([]string{"INT", "TERM", "HUP", "QUIT"}, strings.TrimPrefix(name, "SIG")) {
		d.visitors.Go(func() { d.v.stop(context.Background(), byUser, stopGrace) })
	}
}

// A listener passes a connection's input, signals and sizes on to a process.
type listener struct {
	conn    *frames.Conn
	input   func() *io.PipeWriter // of the process; nil where it reads none
	process func() *client.Process
	orphan  func(signal string) // gets signals while there is no process; nil: nobody does
	once    bool                // the end of the connection is the end of the input
}

// listen goes on until the connection ends. What has come by then is still
// passed on, by a goroutine of group, which ends with the process's input.
func (l *listener) listen(group *sync.WaitGroup) {
	queue := make(chan []byte, frames.Window+1)
	defer close(queue)
	group.Go(func() { l.feed(queue) })
	for {
		frame, err := l.conn.Next()
		if err != nil {
			break
		}
		p := l.process()
		switch frame.Kind {
		case frames.Stdin:
			queue <- frame.Payload
		case frames.CloseStdin:
			queue <- nil
		case frames.Signal:
			switch name := string(frame.Payload); {
			case p != nil:
				p.Signal(name) //nolint:errcheck // it may have ended, or the guest takes none
			case l.orphan != nil:
				l.orphan(name)
			}
		case frames.Resize:
			var size api.TTY
			if frame.JSON(&size) == nil && p != nil {
				p.Resize(size.Rows, size.Cols) //nolint:errcheck // likewise
			}
		}
	}
	if l.once {
		queue <- nil
	}
}

// feed writes what is queued to a process's input, nil being the end of it.
// The pipe's reader ends it with the process.
func (l *listener) feed(queue <-chan []byte) {
	for data := range queue {
		switch in := l.input(); {
		case in == nil: // it reads none
		case data == nil:
			in.Close()
		default:
			in.Write(data) //nolint:errcheck // the process reads no more
		}
		l.conn.Send(frames.Credit, nil) //nolint:errcheck // the connection's end is seen by its reader
	}
}
