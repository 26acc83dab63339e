package cli

import (
	"io"

	"github.com/banger-vm/banger/api"
)

// An input is what one connection after another reads, none of it twice.
// Nothing is read before it is asked for: what asks has sent on what it had.
type input struct {
	ask    chan struct{}
	chunks chan []byte
}

// openInput begins to read the user's input once the command may have some.
func (f *foreground) openInput() (*input, <-chan struct{}) {
	from := f.streams.In
	var pressed <-chan struct{}
	if f.keys != nil {
		d := newDetacher(from, f.keys, f.left)
		from, pressed = d, d.pressed
	}
	in := &input{make(chan struct{}, 1), make(chan []byte)}
	// It ends with the input or, where a read waits for ever, with this program.
	go in.pump(from, f.gate, f.left)
	return in, pressed
}

func (in *input) pump(from io.Reader, gate, left <-chan struct{}) {
	defer close(in.chunks)
	select {
	case <-gate:
	case <-left:
		return
	}
	const size = 32 << 10 // bytes
	buf := make([]byte, size)
	for {
		select {
		case <-in.ask:
		case <-left:
			return
		}
		n, err := from.Read(buf)
		if n > 0 {
			select {
			case in.chunks <- append([]byte(nil), buf[:n]...):
			case <-left:
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// A tap is an input for one connection, until that has ended.
type tap struct {
	*input
	rest  []byte
	ended <-chan struct{}
}

func (t *tap) Read(p []byte) (int, error) {
	select {
	case <-t.ended: // what comes is the next one's
		return 0, io.EOF
	default:
	}
	if len(t.rest) == 0 {
		select {
		case t.ask <- struct{}{}:
		default: // the connection before has asked
		}
		select {
		case chunk, ok := <-t.chunks:
			if !ok {
				return 0, io.EOF
			}
			t.rest = chunk
		case <-t.ended:
			return 0, io.EOF
		}
	}
	n := copy(p, t.rest)
	t.rest = t.rest[n:]
	return n, nil
}

// connected are the streams of the next connection. stop ends its share of
// the input.
func (c *conductor) connected() (streams api.Stdio, stop func()) {
	streams = c.streams
	if c.input == nil {
		return streams, func() {}
	}
	ended := make(chan struct{})
	streams.In = &tap{input: c.input, ended: ended}
	return streams, func() { close(ended) }
}
