package tree

import (
	"math"
	"strings"
)

// Default limits of a Merger.
const (
	DefaultMaxInodes = 5_000_000
	DefaultMaxDepth  = 1024
	MaxPath          = 4096 // bytes of a name as the header gives it; PATH_MAX of linux/limits.h
	MaxName          = 255  // bytes of one component; NAME_MAX of linux/limits.h
	MaxTarget        = 4095 // bytes of a symlink's target: PATH_MAX without the final NUL
)

const (
	maxLayers     = math.MaxUint16 - 1
	maxXattrTotal = 1 << 30 // bytes of distinct xattr sets in one tree
	maxHops       = 40      // symlinks followed on one path, equal to the kernel's MAXSYMLINKS
)

// Options are the rules of a merge. The zero value is a rooted merge with the
// default limits.
type Options struct {
	Paths Paths
	// Created is the modification time of directories without an entry in any
	// layer.
	Created Time
	// MaxInodes limits the number of inodes that the layers make, including
	// those that later layers remove. 0 means DefaultMaxInodes.
	MaxInodes int
	// MaxDepth limits the nesting of directories. 0 means DefaultMaxDepth.
	MaxDepth int
}

// A Merger builds a Tree from the entries of layers, oldest layer first. It
// must not be used after it has returned an error.
type Merger struct {
	o       Options
	t       *Tree
	index   index
	sets    xattrSets
	layer   int           // current, -1 before the first
	rooted  rootedNames   // of the current layer
	foreign foreignXattrs // of the current layer
}

// NewMerger returns a Merger whose tree has only a root directory.
func NewMerger(o Options) *Merger {
	if o.MaxInodes == 0 {
		o.MaxInodes = DefaultMaxInodes
	}
	if o.MaxDepth == 0 {
		o.MaxDepth = DefaultMaxDepth
	}
	o.MaxInodes = min(o.MaxInodes, math.MaxInt32)
	o.MaxDepth = min(o.MaxDepth, math.MaxUint16-1)
	t := &Tree{xattrs: [][]Xattr{nil}, runs: [][]Run{nil}}
	m := &Merger{o: o, t: t, index: newIndex(t), sets: xattrSets{t: t, numbers: map[string]uint32{}}, layer: -1}
	m.t.nodes.push()    // ID 0 is no inode
	m.t.dentries.push() // dentry 0 is the end of a list
	root := m.t.nodes.at(m.t.nodes.push())
	m.setImplied(root)
	root.links = 1
	m.t.live = 1
	return m
}

// NextLayer starts the next layer. The entries of the following calls of Add
// belong to it.
func (m *Merger) NextLayer() error {
	if m.layer+1 >= maxLayers {
		return &LimitError{What: "layers", Limit: maxLayers}
	}
	m.layer++
	m.rooted, m.foreign = rootedNames{}, foreignXattrs{}
	return nil
}

// Add merges one entry of the current layer. Its error is an *EntryError,
// which wraps a *LimitError if the entry exceeds a limit. Add does not keep e.
func (m *Merger) Add(e *Entry) error {
	if m.layer < 0 {
		return errOutsideOfLayer
	}
	if err := m.add(e); err != nil {
		return &EntryError{Name: e.Name, Err: err}
	}
	return nil
}

// Tree ends the merge and returns the merged tree. The Merger must not be used
// afterwards.
func (m *Merger) Tree() *Tree {
	t := m.t
	*m = Merger{layer: -1}
	t.sortChildren()
	return t
}

func (m *Merger) add(e *Entry) error {
	path, err := m.clean(e.Name)
	if err != nil {
		return err
	}
	if path, err = m.fromRoot(path, e); err != nil || isIgnored(path) {
		return err
	}
	dirPath, base := split(path)
	if hidden, ok := strings.CutPrefix(base, whiteoutPrefix); ok {
		return m.addWhiteout(dirPath, hidden)
	}
	if base == "" || base == "." || base == ".." {
		return m.addRoot(path, e)
	}
	dir, err := m.walk(dirPath, true)
	if err != nil {
		return err
	}
	return m.set(dir, base, e)
}

// addRoot adds an entry whose path does not end in a name: it is the root
// itself or, in a scoped merge, a path such as "a/..".
func (m *Merger) addRoot(path string, e *Entry) error {
	if e.Type != Directory {
		return ErrRootType
	}
	dir, err := m.walk(path, true)
	if err != nil {
		return err
	}
	n := m.t.nodes.at(uint32(dir))
	if d := n.runs; d != 0 {
		m.t.dentries.at(d).layer = uint16(m.layer)
	}
	return m.setMeta(n, e)
}

// set makes base in dir a name of the inode that e describes.
func (m *Merger) set(dir ID, base string, e *Entry) error {
	if e.Type == HardLink {
		return m.link(dir, base, e)
	}
	if err := m.checkTarget(dir, e); err != nil {
		return err
	}
	d, err := m.dentry(dir, base)
	if err != nil {
		return err
	}
	old := m.t.dentries.at(d).inode
	if e.Type == Directory && old != 0 && m.t.Type(old) == Directory {
		m.t.dentries.at(d).layer = uint16(m.layer)
		return m.setMeta(m.t.nodes.at(uint32(old)), e)
	}
	id, err := m.newNode()
	if err != nil {
		return err
	}
	if err := m.fill(id, d, e); err != nil {
		return err
	}
	m.attach(d, id)
	return nil
}

// fill sets the type and the fields of node id from e. d is the dentry that
// set will attach the node to.
func (m *Merger) fill(id ID, d uint32, e *Entry) error {
	n := m.t.nodes.at(uint32(id))
	n.typ = e.Type
	if err := m.setMeta(n, e); err != nil {
		return err
	}
	switch e.Type {
	case Regular:
		n.size, n.data, n.layer = e.Size, e.Body.Offset, uint16(m.layer)
		if e.Body.Runs != nil {
			n.runs = uint32(len(m.t.runs))
			m.t.runs = append(m.t.runs, append([]Run{}, e.Body.Runs...))
		}
	case Directory:
		return m.makeDir(n, d)
	case Symlink:
		ref, ok := m.t.names.add(e.Linkname)
		if !ok {
			return &LimitError{What: "bytes of names", Limit: maxArena}
		}
		n.size, n.data = int64(len(e.Linkname)), int64(ref)
	case CharDevice, BlockDevice:
		n.data = int64(uint64(e.Major)<<32 | uint64(e.Minor))
	case Fifo:
	default:
		return ErrBadType
	}
	return nil
}

// makeDir makes n an empty directory with the dentry d.
func (m *Merger) makeDir(n *node, d uint32) error {
	depth := m.t.nodes.at(uint32(m.t.dentries.at(d).parent)).depth + 1
	if int(depth) > m.o.MaxDepth {
		return &LimitError{What: "levels of directories", Limit: int64(m.o.MaxDepth), Option: "limits.depth"}
	}
	n.typ, n.depth, n.runs = Directory, depth, d
	return nil
}

// setMeta replaces all metadata of n by that of e.
func (m *Merger) setMeta(n *node, e *Entry) error {
	set, err := m.sets.number(m.foreign.strip(e))
	if err != nil {
		return err
	}
	n.mode, n.uid, n.gid, n.xattrs = e.Mode&0o7777, e.UID, e.GID, set
	n.sec, n.nsec = e.Mtime.Sec, e.Mtime.Nsec
	return nil
}

// setImplied sets the metadata of n to that of a directory without an entry.
func (m *Merger) setImplied(n *node) {
	n.typ, n.mode, n.uid, n.gid, n.xattrs = Directory, 0o755, 0, 0, 0
	n.sec, n.nsec = m.o.Created.Sec, m.o.Created.Nsec
}

// link adds base in dir as a name of the inode that e.Linkname names.
func (m *Merger) link(dir ID, base string, e *Entry) error {
	id, err := m.lookupTarget(e.Linkname)
	if err != nil {
		return err
	}
	d, err := m.dentry(dir, base)
	if err != nil {
		return err
	}
	if m.t.dentries.at(d).inode == id {
		m.t.dentries.at(d).layer = uint16(m.layer)
		return nil
	}
	m.attach(d, id)
	return nil
}

// attach makes d a name of id and detaches the inode that d named before. It
// counts the new link first. Otherwise a hard link that replaces a directory
// would lose its target if the target is in that directory.
func (m *Merger) attach(d uint32, id ID) {
	m.t.nodes.at(uint32(id)).links++
	e := m.t.dentries.at(d)
	if e.inode != 0 {
		m.detach(d)
	}
	e.inode, e.layer = id, uint16(m.layer)
	m.t.nodes.at(uint32(e.parent)).size++
}

// detach removes the inode from d. If it is a directory, detach removes
// everything below it too.
func (m *Merger) detach(d uint32) {
	e := m.t.dentries.at(d)
	n := m.t.nodes.at(uint32(e.inode))
	e.inode = 0
	m.t.nodes.at(uint32(e.parent)).size--
	if n.links--; n.links > 0 {
		return
	}
	m.t.live--
	if n.typ == Directory {
		for c := uint32(n.data); c != 0; c = m.t.dentries.at(c).next {
			if m.t.dentries.at(c).inode != 0 {
				m.detach(c)
			}
		}
	}
	n.typ = 0
}

// newNode returns a new node without a name.
func (m *Merger) newNode() (ID, error) {
	if m.t.nodes.n > m.o.MaxInodes {
		return 0, &LimitError{What: "inodes", Limit: int64(m.o.MaxInodes), Option: "--max-inodes"}
	}
	m.t.live++
	return ID(m.t.nodes.push()), nil
}

// dentry returns the dentry of name in dir, and makes it if there is none. A
// Merger never frees a dentry, so it limits their number to that of the
// inodes.
func (m *Merger) dentry(dir ID, name string) (uint32, error) {
	slot, d := m.index.find(dir, name)
	if d != 0 {
		return d, nil
	}
	ref, ok := m.t.names.add(name)
	if !ok {
		return 0, &LimitError{What: "bytes of names", Limit: maxArena}
	}
	if m.t.dentries.n > m.o.MaxInodes {
		return 0, &LimitError{What: "names", Limit: int64(m.o.MaxInodes), Option: "--max-inodes"}
	}
	d = m.t.dentries.push()
	parent := m.t.nodes.at(uint32(dir))
	*m.t.dentries.at(d) = dentry{parent: dir, next: uint32(parent.data), name: ref, length: uint8(len(name))}
	parent.data = int64(d)
	m.index.insert(slot, d)
	return d, nil
}
