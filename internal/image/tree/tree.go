package tree

import (
	"iter"
	"slices"
	"strings"
)

// ID identifies an inode of a Tree. 0 is no inode.
type ID uint32

// Root is the root directory of every tree.
const Root ID = 1

// A Tree is the merged file system of an image. A Merger makes it. A Tree does
// not change and is safe for concurrent use.
type Tree struct {
	nodes    chunks[node]
	dentries chunks[dentry]
	names    arena
	xattrs   [][]Xattr // sets that inodes share; index 0 is the empty set
	runs     [][]Run   // run lists of files with holes; index 0 means no holes
	live     int       // number of inodes in the tree
}

// node is an inode. The meaning of size, data, runs and layer depends on the
// type.
type node struct {
	sec    int64
	size   int64 // Regular: bytes; Symlink: length of the target; Directory: names in it
	data   int64 // Regular: spool offset; Symlink: arena reference; device: major<<32|minor; Directory: first dentry
	nsec   uint32
	uid    uint32
	gid    uint32
	links  uint32 // number of names; 0 if the node is not in the tree
	xattrs uint32
	runs   uint32 // Regular: run list; Directory: its own dentry
	layer  uint16 // Regular: layer of the spool; Directory: 1 + the last layer that hid its children
	mode   uint16
	depth  uint16 // Directory: distance from the root
	typ    Type   // 0 after the node has left the tree
}

// dentry is a name in a directory. A removed name keeps its dentry, with
// inode 0, for the next entry with that name.
type dentry struct {
	parent ID
	inode  ID
	next   uint32 // sibling
	name   uint32
	layer  uint16 // last layer that set this name
	length uint8
}

// Inode is a copy of an inode of the tree.
type Inode struct {
	Type         Type
	Mode         uint16 // 07777
	UID, GID     uint32
	Mtime        Time
	Links        int     // number of names in the tree; 1 for a directory
	Xattrs       []Xattr // sorted by name; shared, must not be modified
	Size         int64   // of a Regular file, bytes
	Body         Body    // of a Regular file; Runs is shared, must not be modified
	Target       string  // of a Symlink
	Major, Minor uint32  // of a device
	Names        int     // number of names in a Directory, without . and ..
}

// NumInodes returns the number of inodes of the tree, the root included.
func (t *Tree) NumInodes() int { return t.live }

// EndID returns an ID above all IDs of the tree, for tables indexed by ID. IDs
// below it may be unused, because a later layer removed their inodes.
func (t *Tree) EndID() ID { return ID(t.nodes.n) }

// Inode returns the inode id. If id is not in the tree, the Type of the
// returned Inode is zero.
func (t *Tree) Inode(id ID) Inode {
	n := t.nodes.at(uint32(id))
	if n.links == 0 {
		return Inode{}
	}
	in := Inode{
		Type: n.typ, Mode: n.mode, UID: n.uid, GID: n.gid, Mtime: Time{n.sec, n.nsec},
		Links: int(n.links), Xattrs: t.xattrs[n.xattrs],
	}
	switch n.typ {
	case Regular:
		in.Size = n.size
		in.Body = Body{Layer: int(n.layer), Offset: n.data, Runs: t.runs[n.runs]}
	case Symlink:
		in.Target = t.names.get(uint32(n.data), int(n.size))
	case CharDevice, BlockDevice:
		in.Major, in.Minor = uint32(n.data>>32), uint32(n.data)
	case Directory:
		in.Names = int(n.size)
	}
	return in
}

// Type returns the type of inode id, or 0 if id is not in the tree. It is
// cheaper than Inode.
func (t *Tree) Type(id ID) Type { return t.nodes.at(uint32(id)).typ }

// Children yields the names in directory dir with their inodes, in ascending
// order of the names' bytes. It yields nothing if dir is not a directory.
func (t *Tree) Children(dir ID) iter.Seq2[string, ID] {
	return func(yield func(string, ID) bool) {
		n := t.nodes.at(uint32(dir))
		if n.typ != Directory {
			return
		}
		for d := uint32(n.data); d != 0; {
			e := t.dentries.at(d)
			if e.inode != 0 && !yield(t.name(e), e.inode) {
				return
			}
			d = e.next
		}
	}
}

// Walk yields every path of the tree with its inode. A directory comes before
// its children, and children are in ascending order of the bytes of their
// names. Paths are relative to the root ("usr/bin"). The path of the root is
// ".". An inode with several names comes once for each name.
func (t *Tree) Walk() iter.Seq2[string, ID] {
	return func(yield func(string, ID) bool) {
		if yield(".", Root) {
			t.walk(Root, "", yield)
		}
	}
}

func (t *Tree) walk(dir ID, prefix string, yield func(string, ID) bool) bool {
	for name, id := range t.Children(dir) {
		path := prefix + name
		if !yield(path, id) {
			return false
		}
		if t.Type(id) == Directory && !t.walk(id, path+"/", yield) {
			return false
		}
	}
	return true
}

func (t *Tree) name(e *dentry) string { return t.names.get(e.name, int(e.length)) }

// sortChildren links the names of every directory in ascending order. It
// leaves out the removed names.
func (t *Tree) sortChildren() {
	var list []uint32
	for id := range uint32(t.nodes.n) {
		n := t.nodes.at(id)
		if n.typ != Directory || n.links == 0 {
			continue
		}
		list = list[:0]
		for d := uint32(n.data); d != 0; d = t.dentries.at(d).next {
			if t.dentries.at(d).inode != 0 {
				list = append(list, d)
			}
		}
		slices.SortFunc(list, func(a, b uint32) int {
			return strings.Compare(t.name(t.dentries.at(a)), t.name(t.dentries.at(b)))
		})
		n.data = 0
		for _, d := range slices.Backward(list) {
			t.dentries.at(d).next = uint32(n.data)
			n.data = int64(d)
		}
	}
}
