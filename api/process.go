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

// Stdio has the input and the outputs of a command. A nil field is an empty input or
// drops the output. A goroutine reads In until In or the command ends; a Read that waits
// at the command's end goes on waiting. Event gets the progress of a start. Event and
// the writers are called one at a time.
type Stdio struct {
	In       io.Reader
	Out, Err io.Writer // if the command has a terminal, Out gets all output
	Console  io.Writer
	Event    func(Event)
}

// ErrLost reports that the connection ended before the command did, or before the daemon's
// answer was complete.
var ErrLost = errors.New("connection to the daemon lost")

// ErrDetached reports that Close was called before the command ended.
var ErrDetached = errors.New("detached")

// A Process is a command that runs in a machine, or the start of a machine.
type Process struct {
	conn  *frames.Conn
	kind  kind
	ready chan struct{} // closed when the command is being started, or with done
	done  chan struct{} // closed when the stream has ended
	exit  *Exit         // valid after done; nil if the stream had none
	room  chan struct{} // an element for each frame of input that has no Credit yet

	mu  sync.Mutex
	err error // the first error
}

// chunk is the largest number of input bytes in one frame.
const chunk = 32 << 10

// A kind is the way in which a stream begins and ends.
type kind int

const (
	command  kind = iota // a command that runs; ends with its Exit
	attached             // a boot, then as command
	boot                 // a boot; ends when the machine is ready
)

// start returns the kind of a start request.
func start(attach bool) kind {
	if attach {
		return attached
	}
	return boot
}

// stream sends a request that upgrades its connection. The end of ctx interrupts the
// request, and not the stream.
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

// follow reads the frames until the stream ends.
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

// ended returns the error of a stream that ended with err, or nil if the end was due.
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
		default: // a Credit for a frame that was not sent
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

func (p *Process) event(f frames.Frame, handle func(Event)) error {
	var e Event
	if err := f.JSON(&e); err != nil {
		return err
	}
	if handle != nil {
		handle(e)
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

// setReady closes ready. Only follow calls it.
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

// feed sends the input, and CloseStdin at its end. Wait returns the errors of the
// connection.
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

// Ready returns a channel that is closed when the machine's agent answers and its main
// command is being started, and at the latest with Done. For an Exec, an Attach or an
// Archive it is closed from the beginning.
func (p *Process) Ready() <-chan struct{} { return p.ready }

// Done returns a channel that is closed when the command has ended and Wait does not wait.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits until the command has ended and its outputs are written. For a start that
// does not attach it waits until the machine is ready. The error is an *Error if the
// daemon reported one.
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
	return p.control("send signal", func() error { return p.conn.Send(frames.Signal, []byte(name)) })
}

// Resize sets the size of the command's terminal.
func (p *Process) Resize(rows, cols int) error {
	return p.control("resize terminal", func() error { return p.conn.SendJSON(frames.Resize, TTY{Rows: rows, Cols: cols}) })
}

// CloseStdin ends the command's input.
func (p *Process) CloseStdin() error {
	return p.control("end input", func() error { return p.conn.Send(frames.CloseStdin, nil) })
}

// control calls send. It returns nil if the command has ended, because Wait reports that.
func (p *Process) control(action string, send func() error) error {
	err := send()
	if err == nil || errors.Is(err, net.ErrClosed) || isGone(err) {
		return nil
	}
	return fmt.Errorf("%s: %w", action, err)
}

// Close detaches from the command, which goes on without a client. Wait returns
// ErrDetached if the command has not ended before.
func (p *Process) Close() error {
	select {
	case <-p.done:
		return nil
	default:
	}
	p.fail(ErrDetached)
	return p.conn.Close()
}

// buffered is a connection whose first bytes are already in the buffer of r.
type buffered struct {
	net.Conn
	r *bufio.Reader
}

func (b *buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

// CloseWrite ends the outgoing direction, like CloseWrite of a *net.UnixConn.
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
