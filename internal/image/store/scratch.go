package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const scratchPrefix = ".banger-"

// A Scratch is a private folder, mode 0700, that its process holds locked
// while it lives. What a killed process leaves is recognised by the missing
// lock and removed by the next SweepScratch of the same parent folder.
type Scratch struct {
	Path string
	lock *os.File
}

// Scratch makes a scratch folder on the store's file system.
func (s *Store) Scratch() (*Scratch, error) { return NewScratch(filepath.Join(s.root, "tmp")) }

// NewScratch makes a scratch folder in parent.
func NewScratch(parent string) (*Scratch, error) {
	for {
		s, err := tryScratch(parent)
		if err != nil {
			return nil, fmt.Errorf("make scratch folder: %w", err)
		}
		if s != nil {
			return s, nil
		}
	}
}

// tryScratch returns nil when a sweep took the folder away before the lock
// was on it.
func tryScratch(parent string) (*Scratch, error) {
	path, err := os.MkdirTemp(parent, scratchPrefix)
	if err != nil {
		return nil, err
	}
	lock, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !TryLock(lock) || !stillThere(path, lock) {
		lock.Close()
		return nil, nil
	}
	return &Scratch{Path: path, lock: lock}, nil
}

// stillThere reports whether path is the folder that f has open.
func stillThere(path string, f *os.File) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(path)
	return err == nil && os.SameFile(open, named)
}

// Remove deletes the folder with all that is in it.
func (s *Scratch) Remove() error {
	err := removeTree(s.Path)
	s.lock.Close()
	return err
}

// removeTree is os.RemoveAll that also gets into directories whose modes keep
// their owner out: the tree of an image may have some.
func removeTree(path string) error {
	if err := os.RemoveAll(path); !errors.Is(err, fs.ErrPermission) {
		return err
	}
	// Each folder is opened up before the walk reads it.
	err := filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(name, 0o700)
		}
		return err
	})
	return errors.Join(err, os.RemoveAll(path))
}

// SweepScratch removes the scratch folders in parent whose owner is gone.
func SweepScratch(parent string) error {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return fmt.Errorf("sweep scratch folders: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), scratchPrefix) {
			errs = append(errs, sweepOne(filepath.Join(parent, e.Name())))
		}
	}
	return errors.Join(errs...)
}

func sweepOne(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return nil // gone by now, or another user's
	}
	defer dir.Close()
	if !TryLock(dir) {
		return nil
	}
	return removeTree(path)
}

// TryLock takes the lock of an open file or folder for this process, unless
// another has it. It goes with the file's closing.
func TryLock(f *os.File) bool {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}

// LockFile waits until no other process holds the file path, which is made if
// need be, and returns the function that lets the next one in.
func LockFile(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := waitLock(ctx, f); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// waitLock polls, since a blocked flock(2) could not be canceled.
func waitLock(ctx context.Context, f *os.File) error {
	const every = 5 * time.Millisecond
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
