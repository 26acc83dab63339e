// Package copyrule decides into which folder and under which name a source is
// copied, by the rules of docker's cp. It looks up paths and copies nothing:
// package tarcopy packs and extracts the files.
package copyrule

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/guest/tarcopy"
)

// An Operand is the source or the destination of a copy, as the user typed it.
type Operand struct {
	Machine string // "" for the host
	// Path is a path of the host as it was typed, or an absolute path of the
	// machine. It keeps a slash or a dot at its end, because both have a meaning.
	Path   string
	Stream bool // the host's standard input or output, as a tar stream
}

// Parse parses MACHINE:PATH, PATH or -. A path of the host that contains a colon
// must begin with a slash or a dot.
func Parse(text string) (Operand, error) {
	if text == "-" {
		return Operand{Stream: true}, nil
	}
	machine, inside, ok := strings.Cut(text, ":")
	if ok && !strings.HasPrefix(text, "/") && !strings.HasPrefix(text, ".") {
		if machine == "" || inside == "" {
			return Operand{}, fmt.Errorf("%q is not MACHINE:PATH", text)
		}
		return Operand{Machine: machine, Path: withEnd(path.Join("/", inside), inside)}, nil
	}
	if text == "" {
		return Operand{}, errors.New("a path is empty")
	}
	if filepath.Base(text) == ".." || filepath.Base(filepath.Clean(text)) == ".." { // the name of the folder is not in the path
		whole, err := filepath.Abs(text)
		if err != nil {
			return Operand{}, fmt.Errorf("find %s: %w", text, err)
		}
		text = withEnd(whole, text)
	}
	return Operand{Path: text}, nil
}

// withEnd appends to a clean path the slash or the dot that typed ends with.
func withEnd(whole, typed string) string {
	content, folder := tarcopy.PathForm(typed)
	switch {
	case whole == "/":
	case content:
		whole += "/."
	case folder:
		whole += "/"
	}
	return whole
}

// A Source is the file or the folder to copy.
type Source struct {
	Path string
	Dir  bool // a folder, or a symlink to a folder that is followed
}

// NewSource returns the source at path, for which a lookup has returned found. If
// follow is set, a symlink to a folder is copied as the folder. It returns ENOENT
// if the path does not exist.
func NewSource(path string, found tarcopy.Stat, follow bool) (Source, error) {
	if found.Mode == 0 {
		return Source{}, &os.PathError{Op: "copy", Path: path, Err: unix.ENOENT}
	}
	isLink := found.Mode&unix.S_IFMT == unix.S_IFLNK
	return Source{Path: path, Dir: found.IsDir && (follow || !isLink)}, nil
}

// A Target is the destination of a copy.
type Target struct {
	Path    string // after a symlink that is followed
	Exists  bool
	Dir     bool
	Special bool // a device, pipe or socket
}

// HostTarget looks up a destination on the host. It follows a symlink to a folder.
// The copy replaces any other symlink, and does not write through it: an earlier
// copy from a machine could have made the symlink.
func HostTarget(path string) (Target, error) {
	found, err := tarcopy.Lookup(path)
	if err != nil {
		return Target{}, err
	}
	t := targetOf(path, found)
	if found.Target != "" && found.IsDir {
		t.Path = found.Target
	}
	if !t.Exists { // the error of Stat names the missing folder
		if _, err := os.Stat(filepath.Dir(filepath.Clean(path))); err != nil {
			return Target{}, fmt.Errorf("find the destination's folder: %w", err)
		}
	}
	return t, nil
}

// GuestTarget looks up a destination in a machine. It follows all symlinks, as
// docker does.
func GuestTarget(path string, lookup func(path string) (tarcopy.Stat, error)) (Target, error) {
	found, err := lookup(path)
	if err != nil || found.Target == "" {
		return targetOf(path, found), err
	}
	if path = found.Target; found.IsDir {
		return Target{Path: path, Exists: true, Dir: true}, nil
	}
	found, err = lookup(path)
	return targetOf(path, found), err
}

func targetOf(path string, found tarcopy.Stat) Target {
	kind := found.Mode & unix.S_IFMT
	return Target{
		Path: path, Exists: found.Mode != 0, Dir: found.IsDir,
		Special: found.Mode != 0 && kind != unix.S_IFREG && kind != unix.S_IFDIR && kind != unix.S_IFLNK,
	}
}

// A Plan describes the extraction of a tar stream, whose names all begin with
// From: into the folder Dir, with From replaced by To.
type Plan struct{ Dir, From, To string }

// The errors of copies that docker's rules do not allow.
var (
	ErrNotFolder = errors.New("not a folder")
	ErrOntoFile  = errors.New("a folder cannot be copied onto a file")
	ErrSpecial   = errors.New("is a device, pipe or socket")
	ErrNoFolder  = errors.New("no such folder")
)

// NewPlan returns the plan of a copy by docker's rules. If the destination is a
// folder, the source is copied into it under its own name, or its content alone if
// the source ends in a dot. If the destination does not exist, or is a file, the
// copy gets the name of the destination and replaces the file.
func NewPlan(src Source, dst Target) (Plan, error) {
	_, srcFolder := tarcopy.PathForm(src.Path)
	_, dstFolder := tarcopy.PathForm(dst.Path)
	from := tarcopy.BaseName(src.Path)
	switch {
	case srcFolder && !src.Dir:
		return Plan{}, fmt.Errorf("copy %s: %w", src.Path, ErrNotFolder)
	case dst.Dir:
		return Plan{Dir: dst.Path, From: from, To: from}, nil
	case dst.Special:
		return Plan{}, fmt.Errorf("copy to %s: %w", dst.Path, ErrSpecial)
	case dst.Exists && src.Dir:
		return Plan{}, fmt.Errorf("copy to %s: %w", dst.Path, ErrOntoFile)
	case dst.Exists && dstFolder:
		return Plan{}, fmt.Errorf("copy to %s: %w", dst.Path, ErrNotFolder)
	case dstFolder && !src.Dir:
		return Plan{}, fmt.Errorf("copy to %s: %w", dst.Path, ErrNoFolder)
	}
	clean := filepath.Clean(dst.Path)
	return Plan{Dir: filepath.Dir(clean), From: from, To: filepath.Base(clean)}, nil
}
