// Package frames puts a command's input, outputs, signals and end into one
// byte stream, as frames: a kind (1 byte), the payload's length (4 bytes, big
// endian) and the payload. It is what flows between a client and the daemon
// once a request has been upgraded, and between the daemon and a machine's
// supervisor, so that the daemon passes on what it need not understand. The
// package knows neither machines nor requests: JSON payloads are its users'.
package frames

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// A Kind says what a frame's payload is.
type Kind byte

// The kinds. Their numbers are the protocol's.
const (
	Request    Kind = 1  // JSON: what is asked for; the first frame of a connection to a supervisor
	Stdin      Kind = 2  // bytes of the command's input
	CloseStdin Kind = 3  // the end of it
	Stdout     Kind = 4  // bytes of the command's output
	Stderr     Kind = 5  // bytes of its error output
	Console    Kind = 6  // bytes that the machine wrote to its console
	Resize     Kind = 7  // JSON: the terminal's new size
	Signal     Kind = 8  // the name of a signal for the command
	Event      Kind = 9  // JSON: how far a start has come
	Answer     Kind = 10 // JSON: what was asked for
	Exit       Kind = 11 // JSON: how the command ended; the last frame
	Error      Kind = 12 // JSON: why what was asked for failed; the last frame
	Credit     Kind = 13 // one frame of Stdin has been taken
)

// Window is how many frames of Stdin may be on their way without a Credit, so
// that a Signal behind them is not held up by a command that does not read.
const Window = 16

// Bounds of a frame.
const (
	MaxPayload = 1 << 20  // bytes
	chunk      = 32 << 10 // bytes of data in one frame
	header     = 5        // bytes
)

// ErrTooLarge says that a frame has more than MaxPayload bytes.
var ErrTooLarge = errors.New("frame is too large")

// A Frame is one message.
type Frame struct {
	Kind    Kind
	Payload []byte
}

// JSON decodes the payload into v.
func (f Frame) JSON(v any) error {
	if err := json.Unmarshal(f.Payload, v); err != nil {
		return fmt.Errorf("decode frame of kind %d: %w", f.Kind, err)
	}
	return nil
}

// A Conn carries frames over a byte stream that it owns. Send and SendJSON
// may be called from several goroutines, Next from one.
type Conn struct {
	rw io.ReadWriteCloser
	r  *bufio.Reader

	mu  sync.Mutex // one frame at a time
	out []byte
}

// New returns a Conn over rw.
func New(rw io.ReadWriteCloser) *Conn {
	return &Conn{rw: rw, r: bufio.NewReaderSize(rw, chunk+header)}
}

// NewBuffered is New where r holds what was read of rw already.
func NewBuffered(rw io.ReadWriteCloser, r *bufio.Reader) *Conn { return &Conn{rw: rw, r: r} }

// Send writes one frame.
func (c *Conn) Send(kind Kind, payload []byte) error {
	if len(payload) > MaxPayload {
		return ErrTooLarge
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = append(c.out[:0], byte(kind))
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(len(payload)))
	c.out = append(c.out, payload...)
	_, err := c.rw.Write(c.out)
	return err
}

// SendJSON writes v as one frame.
func (c *Conn) SendJSON(kind Kind, v any) error {
	payload, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode frame of kind %d: %w", kind, err)
	}
	return c.Send(kind, payload)
}

// Next returns the next frame. Its payload is the caller's. The error is
// io.EOF at the end of the stream, between two frames.
func (c *Conn) Next() (Frame, error) {
	var head [header]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return Frame{}, err
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size > MaxPayload {
		return Frame{}, fmt.Errorf("%w: %d bytes", ErrTooLarge, size)
	}
	payload := make([]byte, size)
	if _, err := io.ReadFull(c.r, payload); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return Frame{}, err
	}
	return Frame{Kind(head[0]), payload}, nil
}

// Writer returns a writer whose data become frames of the kind.
func (c *Conn) Writer(kind Kind) io.Writer { return writer{c, kind} }

type writer struct {
	conn *Conn
	kind Kind
}

func (w writer) Write(p []byte) (n int, err error) {
	for n < len(p) {
		part := p[n:min(len(p), n+chunk)]
		if err := w.conn.Send(w.kind, part); err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}

// Close ends the stream, and with it a Next that waits.
func (c *Conn) Close() error { return c.rw.Close() }

// Relay passes frames on between a and b until either ends, unread and
// unchanged, and closes both.
func Relay(a, b *Conn) {
	var both sync.WaitGroup
	pass := func(to, from *Conn) {
		_, _ = io.Copy(to.rw, from.r) // an error ends both connections, as the end of either does
		to.Close()
		from.Close()
	}
	both.Go(func() { pass(a, b) })
	pass(b, a)
	both.Wait()
}
