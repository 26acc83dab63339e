package tarcopy

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// parents opens the folders of names. It creates folders that are missing.
type parents struct {
	root   *os.Root
	isRoot bool // root is the root of the file system, so that no symlink leads out of it
	follow bool // follow symlinks that stay below root

	last *os.File // the folder that was opened last
	name string
}

func (p *parents) close() {
	p.root.Close()
	if p.last != nil {
		p.last.Close()
	}
}

// open returns the descriptor of a folder. It is valid until the next call. The
// last folder stays valid while it is cached, because a file does not replace a
// folder.
func (p *parents) open(name string) (int, error) {
	if p.last != nil && p.name == name {
		return int(p.last.Fd()), nil
	}
	f, err := p.openOrCreate(name)
	if err != nil {
		return -1, err
	}
	if p.last != nil {
		p.last.Close()
	}
	p.last, p.name = f, name
	return int(f.Fd()), nil
}

func (p *parents) openOrCreate(name string) (*os.File, error) {
	f, err := p.openExisting(name)
	if !errors.Is(err, unix.ENOENT) || name == "." {
		return f, err
	}
	outer, err := p.openOrCreate(path.Dir(name))
	if err != nil {
		return nil, err
	}
	defer outer.Close()
	if err := unix.Mkdirat(int(outer.Fd()), path.Base(name), 0o755); err != nil {
		if errors.Is(err, unix.EEXIST) {
			err = unix.ENOENT // a dangling symlink
		}
		return nil, fmt.Errorf("make folder %s: %w", quote(name), err)
	}
	return p.openExisting(name)
}

// openExisting opens a folder without creating it.
func (p *parents) openExisting(name string) (*os.File, error) {
	switch {
	case !p.follow:
		return p.walk(name)
	case p.isRoot:
		return os.OpenFile("/"+name, unix.O_DIRECTORY, 0)
	default:
		return p.root.OpenFile(name, unix.O_DIRECTORY, 0)
	}
}

// walk opens a folder element by element and follows no symlink.
func (p *parents) walk(name string) (*os.File, error) {
	at, err := p.root.Open(".")
	if err != nil || name == "." {
		return at, err
	}
	for name != "" {
		part, rest, _ := strings.Cut(name, "/")
		fd, err := unix.Openat(int(at.Fd()), part, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			err = pathError(int(at.Fd()), part, err)
			at.Close()
			return nil, err
		}
		at.Close()
		at, name = os.NewFile(uintptr(fd), part), rest
	}
	return at, nil
}

// pathError returns the reason why an element of a path is not a folder.
func pathError(dir int, part string, err error) error {
	var st unix.Stat_t
	if unix.Fstatat(dir, part, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return fmt.Errorf("its path goes through the symlink %q", part)
	}
	return &os.PathError{Op: "open", Path: part, Err: err}
}
