package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"

	"github.com/banger-vm/banger/internal/base/frames"
)

// Stdio is where a command's input and outputs are, and who is told how far a
// start has come. Nil is nothing. In is read until the command ends or In
// does; a Read that waits is left waiting. Event and the writers are called
// one after the other.
type Stdio struct {
	In       io.Reader
	Out, Err io.Writer // of a command with a terminal Out has all
	Console  io.Writer
	Event    func(Event)
}

// ErrLost says that the connection ended before the command did.
var ErrLost = errors.New("connection to the daemon lost")

// ErrDetached says that Close was called before the command ended.
var ErrDetached = errors.New("detached")

// A Process is a command that runs in a machine, or the start of a machine.
type Process struct {
	conn  *frames.Conn
	kind  kind
	ready chan struct{} // closed when the command is being started, or done is
	done  chan struct{} // closed when the stream has ended
	exit  *Exit         // valid then; nil for none
	room  chan struct{} // has a place for each frame of input on its way

	mu  sync.Mutex
	err error // the first one
}

// chunk is how many bytes of input go into one frame.
const chunk = 32 << 10

// A kind says how a stream begins and ends.
type kind int

const (
	command  kind = iota // runs, and ends with its Exit
	attached             // boots, then as command
	boot                 // boots, then ends
)

// start is the kind of a start that attaches, or does not.
func start(attach bool) kind {
	if attach {
		return attached
	}
	return boot
}

// stream sends a request that upgrades its connection. ctx bounds that much.
func (c *Client) stream(ctx context.Context, q request, streams Stdio, k kind) (*Process, error) {
	q.method, q.upgrade = http.MethodPost, true
	a, err := c.send(ctx, q)
	if err != nil {
		return nil, err
	}
	p := &Process{
		conn: frames.NewBuffered(a.conn, a.r), kind: k,
		ready: make(chan struct{}), done: make(chan struct{}), room: make(chan struct{}, frames.Window),
	}
	if k == command {
		close(p.ready)
	}
	go p.follow(streams)
	if streams.In != nil {
		go p.feed(streams.In)
	}
	return p, nil
}

// follow takes the frames until the stream ends.
func (p *Process) follow(streams Stdio) {
	defer close(p.done)
	defer p.conn.Close()
	defer p.setReady()
	for {
		f, err := p.conn.Next()
		if err != nil {
			p.fail(p.ended(err))
			return
		}
		last, err := p.take(f, streams)
		if err != nil {
			p.fail(err)
		}
		if last || err != nil {
			return
		}
	}
}

// ended is what the end of the stream means, nil where it is in order.
func (p *Process) ended(err error) error {
	if errors.Is(err, io.EOF) && p.kind == boot && p.isReady() {
		p.exit = new(Exit)
		return nil
	}
	if errors.Is(err, io.EOF) {
		return ErrLost
	}
	return fmt.Errorf("%w: %w", ErrLost, err)
}

func (p *Process) take(f frames.Frame, streams Stdio) (last bool, err error) {
	switch f.Kind {
	case frames.Stdout:
		return false, write(streams.Out, f.Payload)
	case frames.Stderr:
		return false, write(streams.Err, f.Payload)
	case frames.Console:
		return false, write(streams.Console, f.Payload)
	case frames.Event:
		return false, p.event(f, streams.Event)
	case frames.Credit:
		select {
		case <-p.room:
		default: // for more than was sent
		}
		return false, nil
	case frames.Exit:
		p.exit = new(Exit)
		return true, f.JSON(p.exit)
	case frames.Error:
		e := new(Error)
		if err := f.JSON(e); err != nil {
			return true, err
		}
		return true, e
	case frames.Request, frames.Stdin, frames.CloseStdin, frames.Resize, frames.Signal, frames.Answer:
	}
	return true, fmt.Errorf("frame of kind %d from the daemon", f.Kind)
}

func write(w io.Writer, b []byte) error {
	if w == nil {
		return nil
	}
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

func (p *Process) event(f frames.Frame, tell func(Event)) error {
	var e Event
	if err := f.JSON(&e); err != nil {
		return err
	}
	if tell != nil {
		tell(e)
	}
	if e.Ready {
		p.setReady()
	}
	return nil
}

func (p *Process) isReady() bool {
	select {
	case <-p.ready:
		return true
	default:
		return false
	}
}

// setReady is called by follow alone.
func (p *Process) setReady() {
	if !p.isReady() {
		close(p.ready)
	}
}

func (p *Process) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
}

// feed sends the input, whose end is the command's end of file. What goes
// wrong with the connection Wait says.
func (p *Process) feed(in io.Reader) {
	buf := make([]byte, chunk)
	for {
		n, err := in.Read(buf)
		if n > 0 {
			select {
			case p.room <- struct{}{}:
			case <-p.done:
				return
			}
			if p.conn.Send(frames.Stdin, buf[:n]) != nil {
				return
			}
		}
		if err != nil {
			_ = p.CloseStdin() // Wait returns the error of the connection
			return
		}
	}
}

// Ready is closed when the machine's agent answers and its main command is
// being started, and at the latest with Done. Of an Exec, an Attach or an
// Archive it is closed from the beginning.
func (p *Process) Ready() <-chan struct{} { return p.ready }

// Done is closed when Wait has something to return.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the command's end, with its outputs written; of a start that
// does not attach, until the machine is ready. The error is an *Error where
// the daemon had one.
func (p *Process) Wait() (Exit, error) {
	<-p.done
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return Exit{}, p.err
	}
	return *p.exit, nil
}

// Signal sends the command a signal: a name such as TERM, SIGTERM or
// SIGRTMIN+3, or a number.
func (p *Process) Signal(name string) error {
	return p.say("send signal", func() error { return p.conn.Send(frames.Signal, []byte(name)) })
}

// Resize tells the command's terminal its new size.
func (p *Process) Resize(rows, cols int) error {
	return p.say("resize terminal", func() error { return p.conn.SendJSON(frames.Resize, TTY{Rows: rows, Cols: cols}) })
}

// CloseStdin ends the command's input.
func (p *Process) CloseStdin() error {
	return p.say("end input", func() error { return p.conn.Send(frames.CloseStdin, nil) })
}

// say is silent on a command that has ended: Wait says so.
func (p *Process) say(what string, send func() error) error {
	err := send()
	if err == nil || errors.Is(err, net.ErrClosed) || isGone(err) {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Close detaches: the command goes on, with nobody who reads its outputs or
// feeds its input. Wait returns ErrDetached if it had not ended.
func (p *Process) Close() error {
	select {
	case <-p.done:
		return nil
	default:
	}
	p.fail(ErrDetached)
	return p.conn.Close()
}

// buffered is a connection of which r has read something already.
type buffered struct {
	net.Conn
	r *bufio.Reader
}

func (b *buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

// CloseWrite ends the outgoing direction, as that of a *net.UnixConn does.
func (b *buffered) CloseWrite() error {
	if c, ok := b.Conn.(*net.UnixConn); ok {
		return c.CloseWrite()
	}
	return b.Close()
}

// isGone reports whether the other end of a connection has closed it.
func isGone(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}
