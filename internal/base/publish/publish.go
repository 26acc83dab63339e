// Package publish gives a file or a folder its name only when it is whole. A writer
// works in a scratch folder beside the target and renames the result at the end, so
// a reader finds the old content or the new, and an error leaves nothing behind. A
// process that is killed leaves a scratch folder, which the next Sweep removes.
//
// Package atomicfile does the same for a few bytes that are in memory.
package publish

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/base/atomicfile"
)

// File publishes the bytes that write writes as the file path, in place of the file
// that has the name.
func File(path string, write func(f *os.File) error) error {
	return InScratch(filepath.Dir(path), func(scratch string) error {
		f, err := os.Create(filepath.Join(scratch, "file"))
		if err != nil {
			return err
		}
		err = write(f)
		if err == nil {
			err = atomicfile.Commit(f, path)
		}
		return errors.Join(err, f.Close())
	})
}

// Folder moves the folder from, whose content is already on the device (fsync), to
// dir on the same file system. A folder that is at dir changes places with it in one
// step, so a process that is killed leaves either of them at dir. The old one is then
// in the parent of from, a scratch folder, and goes with it.
func Folder(from, dir string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, dir, unix.RENAME_EXCHANGE)
	switch {
	case errors.Is(err, unix.ENOENT): // from or dir does not exist; Rename reports an error if it is from
		return atomicfile.Rename(from, dir)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		err = swap(from, dir)
	}
	if err != nil {
		return fmt.Errorf("replace %s: %w", dir, err)
	}
	return atomicfile.SyncDir(filepath.Dir(dir))
}

// swap replaces dir on a file system that cannot exchange two names. If it fails, it
// puts the old folder back.
func swap(from, dir string) error {
	old := from + ".old"
	if err := os.Rename(dir, old); err != nil {
		return err
	}
	if err := os.Rename(from, dir); err != nil {
		return errors.Join(err, os.Rename(old, dir))
	}
	return nil
}
