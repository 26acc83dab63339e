package e2fs

import (
	"errors"
	"fmt"
	"math/bits"
	"strings"

	"github.com/banger-vm/banger/internal/image/tree"
)

// maxLinks is EXT4_LINK_MAX of fs/ext4/ext4.h.
const maxLinks = 65000

// findings are the results of inspect.
type findings struct {
	content content
	xattrs  tally // extended attributes that the disk will not have
	times   tally // inodes with a modification time that ext4 cannot store
}

func (f *findings) warnings() []string {
	var out []string
	for _, t := range []struct {
		*tally
		text string
	}{
		{&f.xattrs, "extended attributes left out, since debugfs cannot store them (--builder=native can)"},
		{&f.times, "modification times moved to the nearest that ext4 can store"},
	} {
		if t.count > 0 {
			out = append(out, fmt.Sprintf("%d %s: %s", t.count, t.text, t.tally))
		}
	}
	return out
}

// tally counts names and keeps the first of them.
type tally struct {
	count int
	names []string
}

func (t *tally) add(name string) {
	const keep = 20
	if t.count++; t.count <= keep {
		t.names = append(t.names, name)
	}
}

func (t *tally) String() string {
	s := strings.Join(t.names, ", ")
	if more := t.count - len(t.names); more > 0 {
		s += fmt.Sprintf(" and %d more", more)
	}
	return s
}

// inspect returns an error if the tree cannot become a disk. Otherwise it
// returns the size of the content and the metadata that the disk will not
// have. It runs before Build writes anything.
func inspect(t *tree.Tree) (*findings, error) {
	f := &findings{}
	seen := map[tree.ID]bool{} // of inodes with several names
	for path, id := range t.Walk() {
		if !isSafe(path) {
			return nil, fmt.Errorf("path %q: %w", path, ErrUnsafeName)
		}
		in := t.Inode(id)
		again := in.Links > 1 && in.Type != tree.Directory && seen[id]
		if !again {
			if err := checkInode(path, in); err != nil {
				return nil, fmt.Errorf("path %q: %w", path, err)
			}
			f.addLosses(path, in)
		}
		if in.Links > 1 {
			seen[id] = true
		}
		f.content.add(t, id, in, again)
	}
	f.content.finish(t)
	return f, nil
}

func checkInode(path string, in tree.Inode) error {
	switch {
	case path == lostFound && in.Type != tree.Directory:
		return fmt.Errorf("is a %s, but ext4 keeps a directory of that name", in.Type)
	case in.Links > maxLinks && in.Type != tree.Directory:
		return fmt.Errorf("%d hard links are more than the %d of ext4", in.Links, maxLinks)
	case in.Type == tree.CharDevice || in.Type == tree.BlockDevice:
		return checkDevice(in.Major, in.Minor)
	case in.Type == tree.Regular:
		return checkRuns(in)
	}
	return nil
}

// checkDevice returns an error if the device number does not fit the kernel's
// dev_t (MINORBITS in include/linux/kdev_t.h).
func checkDevice(major, minor uint32) error {
	const majorBits, minorBits = 12, 20
	if bits.Len32(major) > majorBits || bits.Len32(minor) > minorBits {
		return fmt.Errorf("device number %d:%d does not fit the %d:%d bits of ext4", major, minor, majorBits, minorBits)
	}
	return nil
}

var errRuns = errors.New("runs of data do not lie within the file in order")

func checkRuns(in tree.Inode) error {
	last := int64(0)
	for _, r := range bodyRuns(in) {
		if r.Offset < last || r.Length <= 0 || r.Length > in.Size-r.Offset {
			return errRuns
		}
		last = end(r)
	}
	return nil
}

// addLosses adds the metadata of an inode that the disk will not have, or will
// have changed.
func (f *findings) addLosses(path string, in tree.Inode) {
	for _, x := range splitXattrs(in.Xattrs).lost {
		f.xattrs.add(fmt.Sprintf("%q (%s)", path, printable(x.Name)))
	}
	if _, _, exact := encodeTime(in.Mtime); !exact {
		f.times.add(fmt.Sprintf("%q", path))
	}
}

// printable returns the name of an attribute for a warning, quoted if it could
// break the line.
func printable(name string) string {
	if isSafe(name) {
		return name
	}
	return fmt.Sprintf("%q", name)
}
