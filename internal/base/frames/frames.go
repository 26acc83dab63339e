// Package frames carries a command's input, outputs, signals and exit in one
// byte stream, as frames: a kind (1 byte), the payload's length (4 bytes, big
// endian) and the payload. Frames flow between a client and the daemon after a
// request is upgraded, and between the daemon and a machine's supervisor; the
// daemon copies them from one to the other without reading them. The package
// does not know machines or requests: its callers define the JSON payloads.
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

// A Kind is the type of a frame's payload.
type Kind byte

// The kinds. Their numbers are the protocol's.
const (
	Request    Kind = 1  // JSON: a request; the first frame of a connection to a supervisor
	Stdin      Kind = 2  // bytes of the command's input
	CloseStdin Kind = 3  // the end of the input
	Stdout     Kind = 4  // bytes of the command's output
	Stderr     Kind = 5  // bytes of its error output
	Console    Kind = 6  // bytes that the machine wrote to its console
	Resize     Kind = 7  // JSON: the terminal's new size
	Signal     Kind = 8  // the name of a signal for the command
	Event      Kind = 9  // JSON: the progress of a start
	Answer     Kind = 10 // JSON: the answer to the request
	Exit       Kind = 11 // JSON: how the command ended; the last frame
	Error      Kind = 12 // JSON: why the request failed; the last frame
	Credit     Kind = 13 // the receiver has taken one frame of Stdin
)

// Window is the number of Stdin frames that a sender may send without a Credit. The
// bound lets a Signal reach a command that does not read its input.
const Window = 16

// Bounds of a frame.
const (
	MaxPayload = 16 << 20 // bytes; a command's arguments of 2 MiB (ARG_MAX), in JSON
	chunk      = 32 << 10 // bytes of data in one frame
	header     = 5        // bytes
)

// ErrTooLarge reports a frame of more than MaxPayload bytes.
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

// A Conn carries frames over a byte stream that it owns. Several goroutines may call
// Send and SendJSON at once; only one may call Next.
type Conn struct {
	rw io.ReadWriteCloser
	r  *bufio.Reader

	mu  sync.Mutex // held while a frame is written
	out []byte
}

// New returns a Conn over rw.
func New(rw io.ReadWriteCloser) *Conn {
	return &Conn{rw: rw, r: bufio.NewReaderSize(rw, chunk+header)}
}

// NewBuffered is New for a stream whose first bytes are already in the buffer of r.
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

// Next returns the next frame, whose payload the caller may keep. If the stream ends
// between two frames, the error is io.EOF.
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

// Writer returns a writer that sends its data as frames of the given kind.
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

// Stream returns the stream that carries the frames.
func (c *Conn) Stream() io.ReadWriteCloser { return c.rw }

// Close closes the stream. A Next that is waiting returns an error.
func (c *Conn) Close() error { return c.rw.Close() }

// Relay copies the frames of a to b and those of b to a, without reading them, until
// either stream ends. It closes both.
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
