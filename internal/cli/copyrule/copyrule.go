// Package copyrule knows how the source and the destination of a copy go
// together: what is copied under which name into which folder, by the rules of
// docker's cp. It looks at paths and moves nothing itself: package archive
// packs and extracts.
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

// An Operand is one side of a copy, as it was typed.
type Operand struct {
	Machine string // "" is the host
	// Path is the host's as it was typed, or the machine's, made absolute. It
	// keeps a slash or a dot at its end, which mean something.
	Path   string
	Stream bool // the host's standard input or output, as a tar stream
}

// Parse reads MACHINE:PATH, PATH or -. A path of the host that has a colon
// is told by its beginning, with a slash or a dot.
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
	if filepath.Base(text) == ".." || filepath.Base(filepath.Clean(text)) == ".." { // whose name is elsewhere
		whole, err := filepath.Abs(text)
		if err != nil {
			return Operand{}, fmt.Errorf("find %s: %w", text, err)
		}
		text = withEnd(whole, text)
	}
	return Operand{Path: text}, nil
}

// withEnd gives a clean path the slash or the dot at its end that it was typed
// with.
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

// A Source is what is copied.
type Source struct {
	Path string
	Dir  bool // it is copied as a folder, and not as a symlink to one
}

// NewSource judges what a lookup of a path found. With follow a symlink
// stands for what it leads to.
func NewSource(path string, found tarcopy.Stat, follow bool) (Source, error) {
	if found.Mode == 0 {
		return Source{}, &os.PathError{Op: "copy", Path: path, Err: unix.ENOENT}
	}
	isLink := found.Mode&unix.S_IFMT == unix.S_IFLNK
	return Source{Path: path, Dir: found.IsDir && (follow || !isLink)}, nil
}

// A Target is where a copy goes.
type Target struct {
	Path    string // symlinks at its end have been followed where they are to be
	Exists  bool
	Dir     bool
	Special bool // a device, pipe or socket
}

// HostTarget looks at a destination on the host. A symlink to a folder is
// followed. One to a file, or to nothing, is replaced itself: a copy from a
// machine could have made it, and a later one must not write through it.
func HostTarget(path string) (Target, error) {
	found, err := tarcopy.Lookup(path)
	if err != nil {
		return Target{}, err
	}
	t := targetOf(path, found)
	if found.Target != "" && found.IsDir {
		t.Path = found.Target
	}
	if !t.Exists { // for an error that names what is missing
		if _, err := os.Stat(filepath.Dir(filepath.Clean(path))); err != nil {
			return Target{}, fmt.Errorf("find the destination's folder: %w", err)
		}
	}
	return t, nil
}

// GuestTarget looks at a destination in a machine, whose symlinks are all
// followed, as docker does.
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

// A Plan says what becomes of a tar stream: it is extracted into the folder
// Dir, with To for From, which its names begin with.
type Plan struct{ Dir, From, To string }

// The errors of copies that make no sense.
var (
	ErrNotFolder = errors.New("not a folder")
	ErrOntoFile  = errors.New("a folder cannot be copied onto a file")
	ErrSpecial   = errors.New("is a device, pipe or socket")
	ErrNoFolder  = errors.New("no such folder")
)

// NewPlan decides by docker's rules. What is copied goes into a folder that
// exists, under its own name; the content alone, where the source ends in a
// dot. A destination that does not exist becomes its name, and so does a file
// that exists, which is replaced.
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
