// Package flock takes advisory locks of open files and folders: flock(2). The
// kernel releases such a lock when every descriptor of the open file is closed, so
// the lock of a process that is killed is released too. The locks are exclusive;
// the package has no shared ones.
package flock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/base/poll"
)

// interval is the time between two attempts to take a lock. LockFile polls because
// the end of a context cannot interrupt a flock(2) that waits.
const interval = 5 * time.Millisecond

// TryLock locks an open file or folder and reports true, or reports false if it is
// locked through another open file. The lock lasts until f is closed.
func TryLock(f *os.File) (bool, error) {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, unix.EINTR):
			return false, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}
}

// Close unlocks f and closes it. Closing alone keeps the lock for as long as a
// child process, between fork and exec, has a copy of the descriptor.
func Close(f *os.File) error {
	return errors.Join(unix.Flock(int(f.Fd()), unix.LOCK_UN), f.Close())
}

// LockFile locks the file path, which it creates if needed, and waits for as long
// as another process has it locked. The function it returns unlocks the file. If
// ctx ends first, the error is the cause of its end.
func LockFile(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := poll.Until(ctx, interval, func() (bool, error) { return TryLock(f) }); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// IsAt reports whether path still names the open file f. Another process may have
// renamed or removed it between the open and the lock.
func IsAt(f *os.File, path string) bool {
	opened, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(path)
	return err == nil && os.SameFile(opened, named)
}
