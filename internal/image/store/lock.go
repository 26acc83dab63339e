package store

import (
	"context"
	"os"

	"github.com/banger-vm/banger/internal/base/flock"
)

// TryLock is flock.TryLock for the machines, which do not call it yet.
func TryLock(f *os.File) bool {
	locked, err := flock.TryLock(f)
	return locked && err == nil
}

// LockFile is flock.LockFile for the machines, which do not call it yet.
func LockFile(ctx context.Context, path string) (unlock func(), err error) {
	return flock.LockFile(ctx, path)
}
