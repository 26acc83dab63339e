package resource

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/machine/ledger"
)

// WaitEnd waits for the end of the process of e, which must be identified. It
// returns nil at once if the process has ended, also if its number belongs to
// another process now.
func WaitEnd(ctx context.Context, e ledger.Entry) error {
	// PIDFD_NONBLOCK of linux/pidfd.h, since Linux 5.10, lets the Go runtime's
	// poller wait for the process.
	fd, err := unix.PidfdOpen(e.PID, unix.PIDFD_NONBLOCK)
	if isNoProcess(err) || errors.Is(err, unix.EINVAL) { // EINVAL: e.PID is the number of a thread now
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch process %d: %w", e.PID, err)
	}
	process := os.NewFile(uintptr(fd), "pidfd")
	defer process.Close()
	// fd refers to one process for good, so if Alive is true, it is the process of e.
	alive, err := Alive(e)
	if !alive || err != nil {
		return err
	}
	conn, err := process.SyscallConn()
	if err != nil {
		return fmt.Errorf("watch process %d: %w", e.PID, err)
	}
	defer context.AfterFunc(ctx, func() { process.SetReadDeadline(time.Now()) })() //nolint:errcheck // a file that the poller watches has deadlines
	var pollErr error
	err = conn.Read(func(fd uintptr) (ended bool) {
		var n int
		n, pollErr = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		if errors.Is(pollErr, unix.EINTR) {
			pollErr = nil
			return false
		}
		return n > 0 || pollErr != nil
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(err, pollErr)
}
