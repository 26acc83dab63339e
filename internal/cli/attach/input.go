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

// openInput makes the loop read the user's input once the command may have
// input.
func (l *loop) openInput() {
	s, from := l.Session, l.streams.In
	if s.term != nil && !s.Exec {
		h := &hangupReader{in: from, gone: make(chan struct{}), done: s.done}
		from, l.gone = h, h.gone
	}
	if s.keys != nil {
		d := newDetacher(from, s.keys, s.done)
		from, l.detached = d, d.pressed
	}
	l.input = &input{make(chan struct{}, 1), make(chan []byte)}
	// The goroutine ends with the input or the session. If a read blocks for
	// ever, it ends with this program.
	go l.input.pump(from, s.opened, s.done)
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
