package resource

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/banger-vm/banger/internal/machine/ledger"
)

// checkPath returns an error unless path is a folder of machine id or inside one.
// The check limits the damage of a wrong entry: Remove removes folders with all
// their content.
func checkPath(path, id string) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || !slices.Contains(strings.Split(path, "/"), id) {
		return fmt.Errorf("path %s is not in a folder of machine %s", path, id)
	}
	return nil
}

// A File is a file that Reserve notes.
type File struct {
	Kind ledger.Kind
	Path string
}

// Reserve notes files in the machine's folders that another process may make. It
// writes the ledger once. Remove recognises these files by their paths alone.
func (m Maker) Reserve(files ...File) error {
	var entries []ledger.Entry
	for _, f := range files {
		e := ledger.Entry{Kind: f.Kind, Name: f.Path, Path: f.Path}
		if err := checkPath(f.Path, m.Owner.ID()); err != nil {
			return fmt.Errorf("reserve %s: %w", &e, err)
		}
		entries = append(entries, e)
	}
	return m.note(entries)
}

// fileID returns the device and inode number and the mode of the file at path.
// It does not follow a symbolic link.
func fileID(path string) (ledger.FileID, fs.FileMode, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return ledger.FileID{}, 0, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ledger.FileID{}, 0, errors.New("file has no inode number")
	}
	return ledger.FileID{Dev: st.Dev, Ino: st.Ino}, info.Mode(), nil
}

func removeFile(e *ledger.Entry) error {
	if err := checkPath(e.Path, e.Owner.ID()); err != nil {
		return err
	}
	id, mode, err := fileID(e.Path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	// An entry that was not identified has only its path, which contains the ID of
	// its machine.
	if e.File != (ledger.FileID{}) && e.File != id {
		return nil
	}
	switch {
	case e.Kind == ledger.Folder && mode.IsDir():
		return os.RemoveAll(e.Path)
	case e.Kind == ledger.Socket && mode.Type() == fs.ModeSocket, e.Kind == ledger.Disk && mode.IsRegular():
		if err := os.Remove(e.Path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
