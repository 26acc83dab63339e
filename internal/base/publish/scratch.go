package publish

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/banger-vm/banger/internal/base/atomicfile"
	"github.com/banger-vm/banger/internal/base/flock"
)

const scratchPrefix = ".banger-"

// A Scratch is a private folder, mode 0700, that its process keeps locked. If the
// process is killed, the lock is gone, and the next Sweep of the parent folder
// removes the folder.
type Scratch struct {
	Path string
	lock *os.File
}

// NewScratch creates a scratch folder in parent.
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

// tryScratch returns nil if a sweep removed the folder before it was locked.
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
	locked, err := flock.TryLock(lock)
	if err != nil {
		return nil, errors.Join(err, lock.Close(), os.Remove(path))
	}
	if !locked || !flock.IsAt(lock, path) {
		lock.Close()
		return nil, nil
	}
	return &Scratch{Path: path, lock: lock}, nil
}

// Remove deletes the folder and everything in it.
func (s *Scratch) Remove() error {
	err := removeAll(s.Path)
	s.lock.Close()
	return err
}

// InScratch removes the scratch folders in parent that killed processes left there,
// calls do with the path of a new one, and removes it.
func InScratch(parent string, do func(scratch string) error) (err error) {
	if err := Sweep(parent); err != nil {
		return err
	}
	s, err := NewScratch(parent)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Remove()) }()
	return do(s.Path)
}

// removeAll is os.RemoveAll that also removes the content of directories that their
// owner may not enter: the tree of an image can have such modes.
func removeAll(path string) error {
	if err := os.RemoveAll(path); !errors.Is(err, fs.ErrPermission) {
		return err
	}
	// WalkDir calls the function for a directory before it reads the directory.
	err := filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(name, 0o700)
		}
		return err
	})
	return errors.Join(err, os.RemoveAll(path))
}

// Sweep removes the scratch folders in parent whose process has ended.
func Sweep(parent string) error {
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
		return nil // removed since it was listed, or another user's
	}
	defer dir.Close()
	if locked, err := flock.TryLock(dir); !locked {
		return err
	}
	return removeAll(path)
}

// RemoveFolder deletes the folder dir and everything in it. Its name goes first, in
// one step, so that dir is either there whole or not there at all.
func RemoveFolder(dir string) error {
	parent := filepath.Dir(dir)
	s, err := NewScratch(parent)
	if err != nil {
		return err
	}
	err = os.Rename(dir, filepath.Join(s.Path, "old"))
	if err == nil {
		err = atomicfile.SyncDir(parent)
	}
	return errors.Join(err, s.Remove())
}
