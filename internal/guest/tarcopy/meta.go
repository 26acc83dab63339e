package tarcopy

import (
	"archive/tar"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// meta is an entry's metadata once it has been judged.
type meta struct {
	uid, gid   int // -1: whoever makes it
	setuid     bool
	setgid     bool
	mode       uint32 // without those two
	mtime      unix.Timespec
	attributes []attribute
	link       bool
}

type attribute struct{ name, value string }

// folder is one whose metadata is still to be set.
type folder struct {
	name    string
	meta    *meta
	existed bool
}

const metaSize = 128 // bytes of a folder and a meta

func (m *meta) size() int {
	n := metaSize
	for _, a := range m.attributes {
		n += len(a.name) + len(a.value)
	}
	return n
}

// metaOf takes from a header what the options allow.
func (x *extractor) metaOf(h *tar.Header) (*meta, error) {
	if !isID(h.Uid) || !isID(h.Gid) {
		return nil, fmt.Errorf("owner %d:%d: not valid", h.Uid, h.Gid)
	}
	mtime, err := unix.TimeToTimespec(h.ModTime)
	if err != nil {
		return nil, fmt.Errorf("time: %w", err)
	}
	mode := uint32(h.Mode & 0o1777) //nolint:gosec // masked
	m := &meta{uid: -1, gid: -1, mode: mode, mtime: mtime, link: h.Typeflag == tar.TypeSymlink}
	if !x.opts.Owners {
		return m, nil
	}
	m.uid, m.gid = h.Uid, h.Gid
	if o := x.opts.Owner; o != nil {
		m.uid, m.gid = o.UID, o.GID
	}
	// With another owner they would give the rights of the wrong user.
	m.setuid = h.Mode&unix.S_ISUID != 0 && m.uid == h.Uid
	m.setgid = h.Mode&unix.S_ISGID != 0 && m.gid == h.Gid
	for _, key := range slices.Sorted(maps.Keys(h.PAXRecords)) {
		name, ok := strings.CutPrefix(key, xattrPrefix)
		if !ok {
			continue
		}
		if name == "" || len(name) > maxElement || strings.ContainsRune(name, 0) {
			return nil, fmt.Errorf("attribute %s: name is not valid", quote(name))
		}
		if !x.opts.Trusted && !isHarmless(name) {
			x.left.add("attribute "+quote(name), h.Name)
			continue
		}
		m.attributes = append(m.attributes, attribute{name, h.PAXRecords[key]})
	}
	return m, nil
}

// isID reports whether a number is one of a user or group; the greatest means
// "leave it" in system calls.
func isID(n int) bool { return n >= 0 && int64(n) < math.MaxUint32 }

// isHarmless reports whether an attribute says only what an owner and a mode
// say too. The others steer security modules, and overlay file systems.
func isHarmless(name string) bool {
	return strings.HasPrefix(name, "user.") || name == "security.capability" ||
		name == "system.posix_acl_access" || name == "system.posix_acl_default"
}

// set gives metadata to what is at a name in a folder, whatever it is.
func (x *extractor) set(dir int, base, name string, m *meta) error {
	fd, err := unix.Openat(dir, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), base)
	defer f.Close()
	return x.setFile(f, name, m)
}

// setFile gives an open file its metadata, in the order in which no step
// undoes another: chown(2) clears setuid bits and capabilities. The calls go
// by the descriptor's name in /proc, which means this file and no other, be it
// a symlink; by the descriptor, the kernel has no such calls for O_PATH.
func (x *extractor) setFile(f *os.File, name string, m *meta) error {
	self := "/proc/self/fd/" + strconv.Itoa(int(f.Fd()))
	mode := m.mode
	if m.uid >= 0 {
		err := unix.Chown(self, m.uid, m.gid)
		switch {
		case err == nil:
			mode |= bits(m.setuid, unix.S_ISUID) | bits(m.setgid, unix.S_ISGID)
		case notAllowed(err):
			x.left.add("owners", name)
		default:
			return fmt.Errorf("set owner: %w", err)
		}
	}
	for _, a := range m.attributes {
		err := unix.Setxattr(self, a.name, []byte(a.value), 0)
		if notAllowed(err) || errors.Is(err, unix.ENOTSUP) {
			x.left.add("attribute "+quote(a.name), name)
		} else if err != nil {
			return fmt.Errorf("set attribute %q: %w", a.name, err)
		}
	}
	if !m.link { // which has no mode of its own
		if err := unix.Chmod(self, mode); err != nil {
			return fmt.Errorf("set mode: %w", err)
		}
	}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, self, []unix.Timespec{m.mtime, m.mtime}, 0); err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	return nil
}

func bits(set bool, mask uint32) uint32 {
	if set {
		return mask
	}
	return 0
}

// notAllowed: EINVAL is for a number that the user namespace does not have.
func notAllowed(err error) bool { return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) }

// finish gives folders their metadata, those within before those around them:
// one that nobody may enter would hide what is in it. Of two entries of one
// folder the later wins.
func (x *extractor) finish() error {
	slices.Reverse(x.folders)
	slices.SortStableFunc(x.folders, func(a, b folder) int { return strings.Compare(b.name, a.name) })
	x.folders = slices.CompactFunc(x.folders, func(a, b folder) bool { return a.name == b.name })
	for _, f := range x.folders {
		dir, err := x.parents.open(path.Dir(f.name))
		if err == nil {
			err = x.set(dir, path.Base(f.name), f.name, f.meta)
		}
		if f.existed && errors.Is(err, unix.EPERM) {
			x.left.add("metadata", f.name)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", quote(f.name), err)
		}
	}
	return nil
}

// leftOut counts what could not be had, by kind, in the order in which the
// kinds came up.
type leftOut struct {
	kinds []string
	of    map[string]*left
}

type left struct {
	count int
	first string
}

// maxKinds bounds them, since a stream may name any attribute.
const maxKinds = 64

func (l *leftOut) add(kind, name string) {
	if l.of == nil {
		l.of = map[string]*left{}
	}
	if l.of[kind] == nil {
		if len(l.kinds) == maxKinds {
			kind = "others"
		}
		if l.of[kind] == nil {
			l.kinds, l.of[kind] = append(l.kinds, kind), &left{first: name}
		}
	}
	l.of[kind].count++
}

func (l *leftOut) tell(note func(string)) {
	if note == nil {
		return
	}
	for _, kind := range l.kinds {
		of := l.of[kind]
		text := fmt.Sprintf("left out %s of %s", kind, quote(of.first))
		if of.count > 1 {
			text += fmt.Sprintf(" and %d more", of.count-1)
		}
		note(text)
	}
}
