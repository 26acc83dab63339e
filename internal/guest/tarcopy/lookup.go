package tarcopy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxLinks is the number of symlinks that Resolve follows, as in Linux.
const maxLinks = 40

// A Stat holds the attributes of a path. If the path does not exist, Mode is 0.
type Stat struct {
	Name  string    `json:"name"` // base name
	Size  int64     `json:"size"`
	Mode  uint32    `json:"mode"` // st_mode of stat(2)
	MTime time.Time `json:"mtime"`
	// Target is the final target of a symlink. It is an absolute path, without
	// symlinks as far as it exists.
	Target string `json:"target,omitempty"`
	IsDir  bool   `json:"isDir,omitempty"` // for a symlink, whether the target is a folder
	// Sparse is set by a guest program whose Pack and Extract know sparse
	// entries. Lookup does not set it.
	Sparse bool `json:"sparse,omitempty"`
}

// Lookup returns the attributes of a path. It follows a symlink in the last
// element only if the path ends in a slash or a dot.
func Lookup(path string) (Stat, error) {
	s := Stat{Name: filepath.Base(path)}
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return Stat{}, &os.PathError{Op: "look up", Path: path, Err: err}
	}
	s.Size, s.Mode, s.IsDir = st.Size, st.Mode, isDir(&st)
	s.MTime = time.Unix(st.Mtim.Unix())
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return s, nil
	}
	if s.Target, err = Resolve(path); err != nil {
		return Stat{}, err
	}
	if to, err := os.Lstat(s.Target); err == nil {
		s.IsDir = to.IsDir()
	}
	return s, nil
}

// Resolve follows the symlinks of a path, even if the target does not exist.
func Resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("resolve %s: %w", path, err)
	}
	for at := range maxLinks {
		whole, err := filepath.EvalSymlinks(path)
		if err == nil {
			return whole, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("resolve %s: %w", path, err)
		}
		dir, err := filepath.EvalSymlinks(filepath.Dir(path))
		if errors.Is(err, fs.ErrNotExist) && at > 0 {
			return path, nil // the folder of the symlink's target does not exist
		}
		if err != nil {
			return "", fmt.Errorf("resolve %s: %w", path, err)
		}
		path = filepath.Join(dir, filepath.Base(path))
		target, err := os.Readlink(path)
		if err != nil {
			return path, nil //nolint:nilerr // path is not a symlink, and need not exist
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(dir, target)
		}
		path = target
	}
	return "", fmt.Errorf("resolve %s: %w", path, unix.ELOOP)
}

// PathForm returns two properties of a path's form, as cp interprets it.
// content is set if the path means the content of a folder: it is "/" or ends
// in a dot. folder is set if the path must be a folder: it ends in a slash or a
// dot.
func PathForm(path string) (content, folder bool) {
	content = path == "." || strings.HasSuffix(path, "/.") || strings.Trim(path, "/") == ""
	return content, content || strings.HasSuffix(path, "/")
}

// BaseName returns the first part of the names in the stream of a path: the
// path's base name, or "." if the path means the content of a folder.
func BaseName(path string) string {
	if content, _ := PathForm(path); content {
		return "."
	}
	return filepath.Base(path)
}
