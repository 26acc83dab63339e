// Package atomicfile replaces a file in one step: a unique temporary in the same
// folder, fsync, rename, fsync of the folder. A reader, or a process that starts after
// a crash, finds the old file or the new file, each of them whole.
package atomicfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Write replaces the file path by one with the given content and permissions. After
// an error the old file is unchanged, and the temporary is removed. A process that is
// killed leaves the temporary, ".NAME.tmp-*", to the owner of the folder.
func Write(path string, data []byte, perm os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-*")
	if err == nil {
		err = WriteTemp(f, path, data, perm)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// WriteTemp is Write with a temporary of the caller's, an empty file on the file
// system of path. It closes f, and removes it after an error.
func WriteTemp(f *os.File, path string, data []byte, perm os.FileMode) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Chmod(perm)
	}
	if err == nil {
		err = Commit(f, path)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return errors.Join(err, f.Close())
}

// Commit brings the content of f to the device and renames f to path. It leaves f
// open, and after an error the caller removes it.
func Commit(f *os.File, path string) error {
	if err := f.Sync(); err != nil {
		return err
	}
	return Rename(f.Name(), path)
}

// Rename moves a file whose content is already on the device (fsync) to path, and
// returns when the move is on the device too.
func Rename(from, path string) error {
	if err := os.Rename(from, path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir brings the names in the folder dir to the device.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
