package attach

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"

	"github.com/banger-vm/banger/internal/cli/exit"
)

// A hangupReader reads a terminal. The input of a terminal in raw mode has no
// end, so an end or an error means that the terminal is gone. The reader then
// closes gone and waits for done: an end of file would end the command's input.
type hangupReader struct {
	in   io.Reader
	gone chan struct{}
	once sync.Once
	done <-chan struct{}
}

func (h *hangupReader) Read(p []byte) (int, error) {
	n, err := h.in.Read(p)
	if n > 0 || err == nil {
		return n, nil // the next Read returns the error again
	}
	h.once.Do(func() { close(h.gone) })
	<-h.done
	return 0, io.EOF
}

// hasControllingTerminal reports whether this process has a controlling
// terminal. The kernel takes it away when the terminal is closed.
func hasControllingTerminal() bool {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// hungUp reports whether a SIGHUP means that the user's terminal is gone. Then
// the machine goes on, as a docker container does. Another SIGHUP is for the
// command, unless the command has a terminal of its own. The end of an exec's
// terminal ends its command, and the end of a terminal during the first boot of
// a machine ends the boot.
func (l *loop) hungUp(number syscall.Signal) bool {
	if number != syscall.SIGHUP || l.Exec || !l.ready && l.RemoveOnAbort {
		return false
	}
	return l.term != nil || l.inTerminal && !hasControllingTerminal()
}

// leaveHungUp leaves the command as if the user had pressed the detach keys. The
// exit code is that of a program that SIGHUP has ended.
func (l *loop) leaveHungUp() error { return l.leave(exit.BySignal(int(syscall.SIGHUP))) }

// lostTerminal reports whether err is that of output to a terminal that is gone.
func (s *Session) lostTerminal(err error) bool { return s.inTerminal && errors.Is(err, syscall.EIO) }
