package pull

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockPoll is how often a lock that another process holds is tried, since
// flock(2) itself cannot be interrupted by a context.
const lockPoll = 20 * time.Millisecond

// tryLock takes the lock of an open file, without waiting. It is gone when
// the file is closed, also by the death of the process.
func tryLock(f *os.File) (bool, error) {
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

// isAt reports whether f still is the file at path: it may have been renamed
// or removed between open and lock.
func isAt(f *os.File, path string) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(open, there)
}

// locked runs do while no other process, and no other goroutine, changes
// which files the cache has. Downloads go on meanwhile; what they lock is
// their own.
func (c *Cache) locked(ctx context.Context, do func() error) error {
	f, err := os.OpenFile(c.lockPath(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("lock cache: %w", err)
	}
	defer f.Close()
	for {
		got, err := tryLock(f)
		if err != nil {
			return fmt.Errorf("lock cache: %w", err)
		}
		if got {
			return do()
		}
		if err := sleep(ctx, lockPoll); err != nil {
			return err
		}
	}
}
