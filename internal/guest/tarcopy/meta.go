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

// meta is the metadata of an entry after the options have been applied.
type meta struct {
	uid, gid   int // -1 for the user that extracts
	setuid     bool
	setgid     bool
	mode       uint32 // without setuid and setgid
	mtime      unix.Timespec
	attributes []attribute
	link       bool
}

type attribute struct{ name, value string }

// A folder is a folder whose metadata is set at the end.
type folder struct {
	name    string
	meta    *meta
	existed bool
}

const metaSize = 128 // estimated bytes of a folder and a meta

func (m *meta) size() int {
	n := metaSize
	for _, a := range m.attributes {
		n += len(a.name) + len(a.value)
	}
	return n
}

// metaOf returns the part of a header's metadata that the options allow.
func (x *extractor) metaOf(h *tar.Header) (*meta, error) {
	if !isID(h.Uid) || !isID(h.Gid) {
		return nil, fmt.Errorf("owner %d:%d: not valid", h.Uid, h.Gid)
	}
	mtime, err := unix.TimeToTimespec(h.ModTime)
	if err != nil {
		return nil, fmt.Errorf("time: %w", err)
	}
	mode := uint32(h.Mode & 0o1777)
	m := &meta{uid: -1, gid: -1, mode: mode, mtime: mtime, link: h.Typeflag == tar.TypeSymlink}
	if !x.opts.Owners {
		return m, nil
	}
	m.uid, m.gid = h.Uid, h.Gid
	if o := x.opts.Owner; o != nil {
		m.uid, m.gid = o.UID, o.GID
	}
	// With another owner, the bits would give the rights of the wrong user.
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
			x.omitted.add("attribute "+quote(name), h.Name)
			continue
		}
		m.attributes = append(m.attributes, attribute{name, h.PAXRecords[key]})
	}
	return m, nil
}

// isID reports whether n is a user or group number. The greatest number means
// "unchanged" in system calls.
func isID(n int) bool { return n >= 0 && int64(n) < math.MaxUint32 }

// isHarmless reports whether an attribute has the effect of an owner or a mode
// only. Other attributes control security modules and overlay file systems.
func isHarmless(name string) bool {
	return strings.HasPrefix(name, "user.") || name == "security.capability" ||
		name == "system.posix_acl_access" || name == "system.posix_acl_default"
}

// set sets the metadata of the file base in the folder dir, of any file type.
func (x *extractor) set(dir int, base, name string, m *meta) error {
	fd, err := unix.Openat(dir, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), base)
	defer f.Close()
	return x.setFile(f, name, m)
}

// setFile sets the metadata of an open file. The order matters, because
// chown(2) clears setuid bits and capabilities. The calls use the descriptor's
// path in /proc, which refers to exactly this file, even if it is a symlink.
// The calls on descriptors do not work with O_PATH.
func (x *extractor) setFile(f *os.File, name string, m *meta) error {
	self := "/proc/self/fd/" + strconv.Itoa(int(f.Fd()))
	mode := m.mode
	if m.uid >= 0 {
		err := unix.Chown(self, m.uid, m.gid)
		switch {
		case err == nil:
			mode |= bits(m.setuid, unix.S_ISUID) | bits(m.setgid, unix.S_ISGID)
		case notAllowed(err):
			x.omitted.add("owners", name)
		default:
			return fmt.Errorf("set owner: %w", err)
		}
	}
	for _, a := range m.attributes {
		err := unix.Setxattr(self, a.name, []byte(a.value), 0)
		if notAllowed(err) || errors.Is(err, unix.ENOTSUP) {
			x.omitted.add("attribute "+quote(a.name), name)
		} else if err != nil {
			return fmt.Errorf("set attribute %q: %w", a.name, err)
		}
	}
	if !m.link { // a symlink has no mode
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

// notAllowed reports whether the user may not make a change. chown returns
// EINVAL for a number that the user namespace does not have.
func notAllowed(err error) bool { return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) }

// finish sets the metadata of the folders. Inner folders come first, because a
// folder that denies access would hide them. If a folder has two entries, the
// later one wins.
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
			x.omitted.add("metadata", f.name)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", quote(f.name), err)
		}
	}
	return nil
}
