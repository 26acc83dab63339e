package agent

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lingerWait is how long the agent waits for output of children that outlive
// their process.
const lingerWait = time.Second

// An output copies one output of a process to its channel.
type output struct {
	src   *os.File
	dst   io.Writer
	ended chan struct{} // closed when the process has ended
	done  chan struct{} // closed when everything for dst is written
}

func newOutput(src *os.File, dst io.Writer) *output {
	return &output{src: src, dst: dst, ended: make(chan struct{}), done: make(chan struct{})}
}

// processEnded informs run that the process has ended. run then closes done
// when it has copied the process's output, and the output that children write
// within lingerWait.
func (o *output) processEnded() {
	close(o.ended)
	_ = o.src.SetReadDeadline(time.Now().Add(lingerWait)) // pipes and terminals support deadlines
}

// run copies until all write ends are closed. If dst fails, or lingerWait has
// passed, it reads and discards the rest, so that no writer blocks. It stops
// when ctx ends.
func (o *output) run(ctx context.Context) {
	defer o.src.Close()
	stop := context.AfterFunc(ctx, func() { o.src.Close() })
	defer stop()
	buf := make([]byte, 32<<10)
	err := o.copy(o.src, buf)
	for more := true; more && errors.Is(err, unix.EIO); {
		more = o.waitReopen()
		err = o.copy(o.src, buf)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		_ = o.src.SetReadDeadline(time.Time{})
		_ = o.copy(io.LimitReader(o.src, o.queued()), buf) // the rest, or less if src fails
		o.dst = io.Discard
		close(o.done)
		_ = o.copy(o.src, buf) // ends with an error by design
		return
	}
	close(o.done)
}

// reopenInterval is the interval at which the agent checks a terminal that no
// process has open.
const reopenInterval = 100 * time.Millisecond

// waitReopen waits for reopenInterval and returns false if the process ended
// meanwhile. A process can open its terminal again through /dev/tty until it
// ends. Closing the master would hang it up.
func (o *output) waitReopen() bool {
	timer := time.NewTimer(reopenInterval)
	defer timer.Stop()
	select {
	case <-o.ended:
		return false
	case <-timer.C:
		return true
	}
}

// queued returns the number of bytes that can be read without blocking.
func (o *output) queued() int64 {
	raw, err := o.src.SyscallConn()
	if err != nil {
		return 0
	}
	n := 0
	// n stays 0 if the file is closed.
	_ = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	return int64(n)
}

// copy copies src to dst until a read fails, and returns the error.
func (o *output) copy(src io.Reader, buf []byte) error {
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if _, failed := o.dst.Write(buf[:n]); failed != nil {
				o.dst = io.Discard // the channel is closed
			}
		}
		if err != nil {
			return err
		}
	}
}
