package supervisor

import (
	"io"
	"sync"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/guest/client"
)

// A receiver passes a connection's input, signals and sizes on to a process.
type receiver struct {
	conn    *frames.Conn
	input   func() *io.PipeWriter // returns the process's input, or nil
	process func() *client.Process
	orphan  func(signal string) // takes signals while there is no process; may be nil
	// signalled is called with each signal for a process; may be nil.
	signalled func(signal string)
	once      bool // the end of the connection is the end of the input
}

// receive returns when the connection has ended. A goroutine of group still
// passes on the input that has arrived, until the process's input ends.
func (r *receiver) receive(group *sync.WaitGroup) {
	queue := make(chan []byte, frames.Window+1)
	defer close(queue)
	group.Go(func() { r.feed(queue) })
	for {
		frame, err := r.conn.Next()
		if err != nil {
			break
		}
		p := r.process()
		switch frame.Kind {
		case frames.Stdin:
			queue <- frame.Payload
		case frames.CloseStdin:
			queue <- nil
		case frames.Signal:
			switch name := string(frame.Payload); {
			case p != nil:
				if r.signalled != nil {
					r.signalled(name) // before the signal, which a guest that reads nothing may block
				}
				p.Signal(name) //nolint:errcheck // the process may have ended
			case r.orphan != nil:
				r.orphan(name)
			}
		case frames.Resize:
			var size api.TTY
			if frame.JSON(&size) == nil && p != nil {
				p.Resize(size.Rows, size.Cols) //nolint:errcheck // the process may have ended
			}
		}
	}
	if r.once {
		queue <- nil
	}
}

// feed writes the queue to the process's input. nil ends the input. The reader
// of the pipe closes it when the process ends.
func (r *receiver) feed(queue <-chan []byte) {
	for data := range queue {
		switch in := r.input(); {
		case in == nil: // the process reads no input
		case data == nil:
			in.Close()
		default:
			in.Write(data) //nolint:errcheck // the process may have ended
		}
		r.conn.Send(frames.Credit, nil) //nolint:errcheck // the reader of the connection sees its end
	}
}
