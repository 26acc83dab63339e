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

// maxLinks is how many symlinks are followed for one path, as in Linux.
const maxLinks = 40

// A Stat says what a path is. A Mode of 0 says that there is nothing.
type Stat struct {
	Name  string    `json:"name"` // base name
	Size  int64     `json:"size"`
	Mode  uint32    `json:"mode"` // st_mode of stat(2)
	MTime time.Time `json:"mtime"`
	// Target is where a symlink leads in the end: an absolute path, without
	// symlinks as far as it exists.
	Target string `json:"target,omitempty"`
	IsDir  bool   `json:"isDir,omitempty"` // also of a symlink that leads to a folder
}

// Lookup says what is at a path, of which a symlink at its end is not
// followed unless the path ends in a slash or in a dot.
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

// Resolve follows the symlinks of a path, also where they lead to nothing
// that exists yet.
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
			return path, nil // a link into a folder that is not there
		}
		if err != nil {
			return "", fmt.Errorf("resolve %s: %w", path, err)
		}
		path = filepath.Join(dir, filepath.Base(path))
		target, err := os.Readlink(path)
		if err != nil {
			return path, nil //nolint:nilerr // it is no link, and need not be there
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(dir, target)
		}
		path = target
	}
	return "", fmt.Errorf("resolve %s: %w", path, unix.ELOOP)
}

// Means says that a path stands for what is in a folder, or for what a
// symlink leads to: that it ends in a slash or in a dot.
func Means(path string) (content, folder bool) {
	content = path == "." || strings.HasSuffix(path, "/.") || strings.Trim(path, "/") == ""
	return content, content || strings.HasSuffix(path, "/")
}

// Name is what the names of a stream of a path begin with: its base name, or
// "." where the path means a folder's content.
func Name(path string) string {
	if content, _ := Means(path); content {
		return "."
	}
	return filepath.Base(path)
}
