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

// WaitEnd waits for the end of an identified process. One that has ended, or
// whose number has gone to another, is not waited for.
func WaitEnd(ctx context.Context, e ledger.Entry) error {
	// PIDFD_NONBLOCK of linux/pidfd.h, since 5.10: lets the runtime's poller wait.
	fd, err := unix.PidfdOpen(e.PID, unix.PIDFD_NONBLOCK)
	if noProcess(err) || errors.Is(err, unix.EINVAL) { // EINVAL: the number is a thread's
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch process %d: %w", e.PID, err)
	}
	process := os.NewFile(uintptr(fd), "pidfd")
	defer process.Close()
	// What fd stands for cannot change any more, so this is about the same.
	alive, err := Alive(e)
	if !alive || err != nil {
		return err
	}
	conn, err := process.SyscallConn()
	if err != nil {
		return fmt.Errorf("watch process %d: %w", e.PID, err)
	}
	defer context.AfterFunc(ctx, func() { process.SetReadDeadline(time.Now()) })() //nolint:errcheck // a file of the poller's has deadlines
	var pollErr error
	err = conn.Read(func(fd uintptr) (ended bool) {
		var n int
		n, pollErr = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0) //nolint:gosec // a descriptor
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
