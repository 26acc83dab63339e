package tree

import (
	"iter"
	"slices"
	"strings"
)

// ID names an inode of a Tree. 0 names none.
type ID uint32

// Root is the root directory of every tree.
const Root ID = 1

// A Tree is the merged file system of an image, made by a Merger. It does not
// change any more and is safe for concurrent use.
type Tree struct {
	nodes    chunks[node]
	dentries chunks[dentry]
	names    arena
	xattrs   [][]Xattr // sets shared by inodes; 0 is the empty set
	runs     [][]Run   // run lists of files with holes; 0 stands for "no holes"
	live     int
}

// node is an inode. What data and size mean depends on the type.
type node struct {
	sec    int64
	size   int64 // Regular: bytes; Symlink: length of the target; Directory: names in it
	data   int64 // Regular: spool offset; Symlink: arena reference; device: major<<32|minor; Directory: first dentry
	nsec   uint32
	uid    uint32
	gid    uint32
	links  uint32 // names; 0 marks a node that is not in the tree
	xattrs uint32
	runs   uint32 // Regular: run list; Directory: its own dentry
	layer  uint16 // Regular: whose spool; Directory: 1 + the last layer that hid what lay below
	mode   uint16
	depth  uint16 // Directory: distance from the root
	typ    Type   // 0 once the node has left the tree
}

// dentry is a name in a directory. A removed name keeps its dentry, with
// inode 0, for the next entry of that name.
type dentry struct {
	parent ID
	inode  ID
	next   uint32 // sibling
	name   uint32
	layer  uint16 // that set this name last
	length uint8
}

// Inode is an inode of the tree, taken out for reading.
type Inode struct {
	Type         Type
	Mode         uint16 // 07777
	UID, GID     uint32
	Mtime        Time
	Links        int     // names of it in the tree; 1 for a directory
	Xattrs       []Xattr // sorted by name; shared, not to be changed
	Size         int64   // of a Regular file, bytes
	Body         Body    // of a Regular file; Runs is shared, not to be changed
	Target       string  // of a Symlink
	Major, Minor uint32  // of a device
	Names        int     // in a Directory, without . and ..
}

// NumInodes returns how many inodes the tree has, the root included.
func (t *Tree) NumInodes() int { return t.live }

// EndID returns an ID above all of the tree's, for tables indexed by ID. IDs
// of inodes that a later layer removed lie unused below it.
func (t *Tree) EndID() ID { return ID(t.nodes.n) }

// Inode returns the inode id. An id that is not in the tree gives an Inode
// whose Type is zero.
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

// Type returns the type of inode id, 0 for one that is not in the tree. It is
// cheaper than Inode.
func (t *Tree) Type(id ID) Type { return t.nodes.at(uint32(id)).typ }

// Children yields the names in directory dir with their inodes, in ascending
// order of the names' bytes. What is not a directory has none.
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

// Walk yields every name of the tree with its inode, a directory before what
// is in it, names in ascending order of bytes. Paths are relative to the root
// ("usr/bin"); the root's own is ".". An inode with several names comes up
// once for each.
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

// sortChildren links the names of every directory in ascending order and
// leaves the removed ones out.
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
