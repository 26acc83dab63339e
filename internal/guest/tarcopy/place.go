package tarcopy

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// A place is a name in an open folder.
type place struct {
	dir  int
	base string
}

// publish has something made under a name of its own and then gives it its
// name, in the place of what has that now.
func (p place) publish(produce func(temporary string) error) error {
	temporary := ".banger-" + rand.Text()
	err := produce(temporary)
	if err == nil {
		err = unix.Renameat(p.dir, temporary, p.dir, p.base)
		if errors.Is(err, unix.EBUSY) {
			err = fmt.Errorf("something is mounted there: %w", err)
		}
	}
	// After the rename it is still there where both are names of one file: rename(2).
	if gone := unix.Unlinkat(p.dir, temporary, 0); err == nil && gone != nil && !errors.Is(gone, unix.ENOENT) {
		err = gone
	}
	return err
}

// parents opens the folders that names are in. It makes those that are
// missing.
type parents struct {
	root   *os.Root
	whole  bool // the root is the file system's, which nothing leads out of
	follow bool // symlinks that stay below the root

	last *os.File // the folder that was opened last
	name string
}

func (p *parents) close() {
	p.root.Close()
	if p.last != nil {
		p.last.Close()
	}
}

// open returns a folder's descriptor, which is good until the next call. A
// folder stays what it is, since no file replaces one.
func (p *parents) open(name string) (int, error) {
	if p.last != nil && p.name == name {
		return int(p.last.Fd()), nil
	}
	f, err := p.make(name)
	if err != nil {
		return -1, err
	}
	if p.last != nil {
		p.last.Close()
	}
	p.last, p.name = f, name
	return int(f.Fd()), nil
}

func (p *parents) make(name string) (*os.File, error) {
	f, err := p.peek(name)
	if !errors.Is(err, unix.ENOENT) || name == "." {
		return f, err
	}
	outer, err := p.make(path.Dir(name))
	if err != nil {
		return nil, err
	}
	defer outer.Close()
	if err := unix.Mkdirat(int(outer.Fd()), path.Base(name), 0o755); err != nil {
		if errors.Is(err, unix.EEXIST) {
			err = unix.ENOENT // a symlink that leads to nothing
		}
		return nil, fmt.Errorf("make folder %s: %w", quote(name), err)
	}
	return p.peek(name)
}

// peek opens a folder that is there.
func (p *parents) peek(name string) (*os.File, error) {
	switch {
	case !p.follow:
		return p.walk(name)
	case p.whole:
		return os.OpenFile("/"+name, unix.O_DIRECTORY, 0)
	default:
		return p.root.OpenFile(name, unix.O_DIRECTORY, 0)
	}
}

// walk goes to a folder part by part and follows no symlink.
func (p *parents) walk(name string) (*os.File, error) {
	at, err := p.root.Open(".")
	if err != nil || name == "." {
		return at, err
	}
	for name != "" {
		part, rest := cut(name)
		fd, err := unix.Openat(int(at.Fd()), part, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			err = refused(int(at.Fd()), part, err)
			at.Close()
			return nil, err
		}
		at.Close()
		at, name = os.NewFile(uintptr(fd), part), rest
	}
	return at, nil
}

func cut(name string) (part, rest string) {
	for i := range len(name) {
		if name[i] == '/' {
			return name[:i], name[i+1:]
		}
	}
	return name, ""
}

// refused says why a part of a path is no folder.
func refused(dir int, part string, err error) error {
	var st unix.Stat_t
	if unix.Fstatat(dir, part, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return fmt.Errorf("its path goes through the symlink %q", part)
	}
	return &os.PathError{Op: "open", Path: part, Err: err}
}
