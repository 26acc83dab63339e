package attach

import (
	"io"

	"github.com/banger-vm/banger/api"
)

// An input is the user's input for one connection after another. No byte is
// read twice. It reads only on request, so that a connection that ends has sent
// all it had requested.
type input struct {
	request chan struct{}
	chunks  chan []byte
}

// openInput returns the user's input, which it starts to read once the command
// may have input. detached is closed after the detach keys; it is nil if there
// are no keys.
func (s *Session) openInput() (in *input, detached <-chan struct{}) {
	from := s.streams.In
	if s.keys != nil {
		d := newDetacher(from, s.keys, s.done)
		from, detached = d, d.pressed
	}
	in = &input{make(chan struct{}, 1), make(chan []byte)}
	// The goroutine ends with the input or the session. If a read blocks for
	// ever, it ends with this program.
	go in.pump(from, s.opened, s.done)
	return in, detached
}

// pump reads a chunk for each request, from the time that opened is closed
// until the input ends or done is closed.
func (in *input) pump(from io.Reader, opened, done <-chan struct{}) {
	defer close(in.chunks)
	select {
	case <-opened:
	case <-done:
		return
	}
	const size = 32 << 10 // bytes
	buf := make([]byte, size)
	for {
		select {
		case <-in.request:
		case <-done:
			return
		}
		n, err := from.Read(buf)
		if n > 0 {
			select {
			case in.chunks <- append([]byte(nil), buf[:n]...):
			case <-done:
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// A connectionInput is the share of an input that one connection reads. It ends
// when ended is closed.
type connectionInput struct {
	*input
	rest  []byte // of the last chunk
	ended <-chan struct{}
}

func (c *connectionInput) Read(p []byte) (int, error) {
	select {
	case <-c.ended: // the next chunk is for the next connection
		return 0, io.EOF
	default:
	}
	if len(c.rest) == 0 {
		select {
		case c.request <- struct{}{}:
		default: // the request of the connection before is still open
		}
		select {
		case chunk, ok := <-c.chunks:
			if !ok {
				return 0, io.EOF
			}
			c.rest = chunk
		case <-c.ended:
			return 0, io.EOF
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// connectionStreams returns the streams of the next connection. stop ends its
// share of the input.
func (l *loop) connectionStreams() (streams api.Stdio, stop func()) {
	streams = l.streams
	if l.input == nil {
		return streams, func() {}
	}
	ended := make(chan struct{})
	streams.In = &connectionInput{input: l.input, ended: ended}
	return streams, func() { close(ended) }
}
