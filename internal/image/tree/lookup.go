package tree

import (
	"strings"
)

// clean checks a name without the tree and returns it without its final
// slashes. The result has ".." only in a scoped merge.
func (m *Merger) clean(name string) (string, error) {
	if len(name) > MaxPath {
		return "", &LimitError{What: "bytes in a path", Limit: MaxPath}
	}
	if name == "" || strings.IndexByte(name, 0) >= 0 {
		return "", ErrBadName
	}
	for part := range strings.SplitSeq(name, "/") {
		if len(part) > MaxName {
			return "", &LimitError{What: "bytes in a file name", Limit: MaxName}
		}
		if part == ".." && m.o.Paths != Scoped {
			return "", ErrDotDot
		}
	}
	return strings.TrimRight(name, "/"), nil
}

// split splits path after its last slash. It first removes each "/." at the
// end, because that names the directory itself.
func split(path string) (dir, base string) {
	for strings.HasSuffix(path, "/.") {
		path = strings.TrimRight(strings.TrimSuffix(path, "."), "/")
	}
	i := strings.LastIndexByte(path, '/')
	return path[:i+1], path[i+1:]
}

// walk follows path from the root and returns the directory that it names. If
// a directory is missing, walk makes it if create is set, and returns 0
// otherwise.
func (m *Merger) walk(path string, create bool) (ID, error) {
	hops := 0
	return m.follow(Root, path, create, &hops)
}

func (m *Merger) follow(dir ID, path string, create bool, hops *int) (ID, error) {
	for part := range strings.SplitSeq(path, "/") {
		var err error
		if dir, err = m.step(dir, part, create, hops); err != nil || dir == 0 {
			return 0, err
		}
	}
	return dir, nil
}

// step returns the directory that part names in dir. In a scoped merge it
// follows symlinks.
func (m *Merger) step(dir ID, part string, create bool, hops *int) (ID, error) {
	switch part {
	case "", ".":
		return dir, nil
	case "..":
		return m.parent(dir), nil
	}
	if strings.HasPrefix(part, whiteoutPrefix) {
		return 0, ErrReservedName
	}
	_, d := m.index.find(dir, part)
	if d == 0 || m.t.dentries.at(d).inode == 0 {
		if !create {
			return 0, nil
		}
		return m.imply(dir, part)
	}
	id := m.t.dentries.at(d).inode
	switch m.t.Type(id) {
	case Directory:
		return id, nil
	case Symlink:
		if m.o.Paths != Scoped {
			return 0, ErrSymlinkParent
		}
		return m.followLink(dir, id, create, hops)
	}
	return 0, ErrNotDirectory
}

// followLink resolves the symlink id in the directory dir, as in a chroot.
func (m *Merger) followLink(dir, id ID, create bool, hops *int) (ID, error) {
	if *hops++; *hops > maxHops {
		return 0, ErrSymlinkLoop
	}
	n := m.t.nodes.at(uint32(id))
	target := m.t.names.get(uint32(n.data), int(n.size))
	if target[0] == '/' {
		dir = Root
	}
	return m.follow(dir, target, create, hops)
}

// parent returns the parent directory of dir. The parent of the root is the
// root.
func (m *Merger) parent(dir ID) ID {
	if d := m.t.nodes.at(uint32(dir)).runs; d != 0 {
		return m.t.dentries.at(d).parent
	}
	return Root
}

// imply makes a directory that no entry has described yet.
func (m *Merger) imply(dir ID, name string) (ID, error) {
	if len(name) > MaxName {
		return 0, &LimitError{What: "bytes in a file name", Limit: MaxName}
	}
	d, err := m.dentry(dir, name)
	if err != nil {
		return 0, err
	}
	id, err := m.newNode()
	if err != nil {
		return 0, err
	}
	n := m.t.nodes.at(uint32(id))
	m.setImplied(n)
	if err := m.makeDir(n, d); err != nil {
		return 0, err
	}
	m.attach(d, id)
	return id, nil
}

// lookupTarget returns the inode that a hard link's target names. An absolute
// target starts at the image's root, even in a strict merge.
func (m *Merger) lookupTarget(target string) (ID, error) {
	path, err := m.clean(strings.TrimLeft(target, "/"))
	if err != nil {
		return 0, &targetError{target, err}
	}
	dirPath, base := split(path)
	if base == "" || base == "." || base == ".." {
		return 0, &targetError{target, ErrLinkDirectory}
	}
	dir, err := m.walk(dirPath, false)
	if err != nil {
		return 0, &targetError{target, err}
	}
	_, d := m.index.find(dir, base)
	if dir == 0 || d == 0 || m.t.dentries.at(d).inode == 0 {
		return 0, &targetError{target, ErrLinkMissing}
	}
	id := m.t.dentries.at(d).inode
	if m.t.Type(id) == Directory {
		return 0, &targetError{target, ErrLinkDirectory}
	}
	return id, nil
}

// checkTarget returns an error if the target of a symlink is empty, has a NUL
// or is too long. Unless the merge is scoped, it also returns an error if the
// text of the target climbs above the root.
func (m *Merger) checkTarget(dir ID, e *Entry) error {
	if e.Type != Symlink {
		return nil
	}
	target := e.Linkname
	if target == "" || strings.IndexByte(target, 0) >= 0 {
		return &targetError{target, ErrBadName}
	}
	if len(target) > MaxTarget {
		return &LimitError{What: "bytes in a symlink target", Limit: MaxTarget}
	}
	if m.o.Paths == Scoped || target[0] == '/' {
		return nil
	}
	depth := int(m.t.nodes.at(uint32(dir)).depth)
	for part := range strings.SplitSeq(target, "/") {
		switch part {
		case "", ".":
		case "..":
			if depth--; depth < 0 {
				return &targetError{target, ErrUnsafeSymlink}
			}
		default:
			depth++
		}
	}
	return nil
}

// targetError is an error in the link target of an entry.
type targetError struct {
	target string
	err    error
}

func (e *targetError) Error() string { return "target " + quoteName(e.target) + ": " + e.err.Error() }

func (e *targetError) Unwrap() error { return e.err }
