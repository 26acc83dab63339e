package write

import (
	"fmt"

	"github.com/banger-vm/banger/internal/image/ext4/format"
	"github.com/banger-vm/banger/internal/image/tree"
)

// The smallest and the largest size of a disk in bytes.
const (
	MinSize = 64 << 20
	MaxSize = maxGroups * groupBlocks * blockSize // 2 TiB: as many groups as the descriptor blocks have room for
)

const maxLabel = 16 // bytes of s_volume_name

// Options configures a disk.
type Options struct {
	// Size is the size of the disk in bytes. If it is 0, Plan chooses it: MinSize
	// if the content and Headroom fit, otherwise whole block groups of 128 MiB.
	Size int64
	// Headroom is the number of bytes that stay free if Plan chooses the size.
	// 0 selects a quarter of the content, at least 32 MiB.
	Headroom int64
	Label    string // at most 16 bytes
	UUID     [16]byte
	HashSeed [16]byte // of directory hashes
	Created  tree.Time
	// Direct is the layer whose bodies are where a DataFile puts them, -1 for
	// none. It changes the bytes of the disk. But the bytes are the same whether
	// the bodies are in the disk already or are copied from a spool.
	Direct int
}

// A SizeError reports that a disk is too small for its tree.
type SizeError struct {
	Have, Need int64 // sizes of the disk in bytes
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("disk of %d bytes is too small: %d bytes (%d MiB) are needed", e.Have, e.Need, e.Need>>20)
}

// Layout holds the places of all data and metadata on a disk. It takes 28 bytes
// for each inode, in addition to the tree.
type Layout struct {
	t *tree.Tree
	o Options

	order        []tree.ID // inodes in the order of their numbers
	numbers      []uint32  // by ID: number of the inode, 0 if it is not in the tree
	parents      []uint32  // by position in order: number of the directory with the first name
	starts       []uint32  // by position in order: position of the body in data
	bodies       []body    // in their order on the disk
	base         uint32    // difference of number and position in order, except for the root
	valueInodes  uint32    // number of inodes that hold values of extended attributes
	clampedPaths []string  // of the first inodes with a clamped time
	clampedTimes int       // number of inodes with a clamped time

	size    int64  // of the disk in bytes
	blocks  int64  // of the file system; fewer than the disk has if the last group would be too small
	data    *space // for bodies
	dataEnd int64  // position in data where the bodies end
	compact bool   // bodies have no gaps between them, so Direct is not where a DataFile puts it
	meta    *space // for metadata
	metaMax int64  // upper bound of the blocks of metadata whose number does not depend on places
	metaEnd int64  // position in meta where the reserved blocks end
	journal span
}

// Plan lays out the disk of a tree. It returns a *SizeError if the tree does not
// fit, and a *tree.EntryError if ext4 cannot hold one of its inodes.
func Plan(t *tree.Tree, o Options) (*Layout, error) {
	if len(o.Label) > maxLabel {
		return nil, fmt.Errorf("label %q: %d bytes, the most is %d", o.Label, len(o.Label), maxLabel)
	}
	if o.Size < 0 || o.Size > MaxSize || o.Headroom < 0 || o.Headroom > MaxSize {
		return nil, fmt.Errorf("size %d, headroom %d: the largest disk has %d bytes", o.Size, o.Headroom, int64(MaxSize))
	}
	l := &Layout{t: t, o: o}
	if err := l.number(); err != nil {
		return nil, err
	}
	if err := l.survey(); err != nil {
		return nil, err
	}
	if err := l.sortBodies(); err != nil {
		return nil, err
	}
	if o.Size > 0 {
		return l, l.fit(o.Size)
	}
	return l, l.choose()
}

// Check returns the error that Plan would return because ext4 cannot hold an inode
// of t. It is for another builder, so that both judge a tree alike.
func Check(t *tree.Tree) error {
	l := &Layout{t: t}
	if err := l.number(); err != nil {
		return err
	}
	return l.survey()
}

// Size returns the size of the disk in bytes.
func (l *Layout) Size() int64 { return l.size }

// MetadataBytes returns an upper bound of the bytes of host storage that the
// metadata takes: Size minus the bodies and the holes. A tree of directories and
// small attributes has little else.
func (l *Layout) MetadataBytes() int64 {
	const bitmaps = 2 // of each group
	groups := (l.blocks + groupBlocks - 1) / groupBlocks
	blocks := l.metaEnd + blocksOf(int64(l.lastInode())*inodeSize) + groups*bitmaps
	for g := range groups {
		if hasBackup(g) {
			blocks += 1 + blocksOf(groups*descSize)
		}
	}
	const journal = 2 // blocks that are not zero
	return (blocks + journal) * blockSize
}

// Warnings returns a line for each of the first times that are out of range and
// that the disk holds changed, and one for the rest.
func (l *Layout) Warnings() []string {
	if l.clampedTimes == 0 {
		return nil
	}
	out := make([]string, 0, len(l.clampedPaths)+1)
	for _, path := range l.clampedPaths {
		out = append(out, fmt.Sprintf("%s: time is outside of 1901 to 2446, clamped", path))
	}
	if more := l.clampedTimes - len(l.clampedPaths); more > 0 {
		out = append(out, fmt.Sprintf("%d more times were outside of 1901 to 2446 and clamped", more))
	}
	return out
}

// number numbers the inodes: 2 for the root, 11 for lost+found, then the contents
// of the directories, breadth first. So inodes of one directory are next to each
// other.
func (l *Layout) number() error {
	t := l.t
	l.numbers = make([]uint32, t.EndID())
	l.order = make([]tree.ID, 0, t.NumInodes())
	l.parents = make([]uint32, 0, t.NumInodes())
	l.base = firstInode
	add := func(id tree.ID, number, parent uint32) {
		l.numbers[id] = number
		l.order = append(l.order, id)
		l.parents = append(l.parents, parent)
	}
	add(tree.Root, format.RootInode, format.RootInode)
	for name, id := range t.Children(tree.Root) {
		if name != lostFoundName {
			continue
		}
		if t.Type(id) != tree.Directory {
			return &tree.EntryError{Name: name, Err: fmt.Errorf("%v where ext4 has a directory", t.Type(id))}
		}
		l.base = firstInode - 1
		add(id, format.LostFoundInode, format.RootInode)
	}
	for i := 0; i < len(l.order); i++ {
		parent := l.numberAt(i)
		for _, id := range t.Children(l.order[i]) {
			if l.numbers[id] == 0 {
				add(id, l.base+uint32(len(l.order)), parent)
			}
		}
	}
	return nil
}

const lostFoundName = "lost+found"

// numberAt returns the number of the inode at a position in the order.
func (l *Layout) numberAt(i int) uint32 {
	if i == 0 {
		return format.RootInode
	}
	return l.base + uint32(i)
}

// ownLostFound reports whether the tree has no lost+found, so that the disk gets
// one of its own.
func (l *Layout) ownLostFound() bool { return l.base == firstInode }

// lastInode returns the highest inode number in use.
func (l *Layout) lastInode() uint32 {
	return l.base + uint32(len(l.order)) - 1 + l.valueInodes
}

// rootExtra returns the names that the directory at a position in the order has in
// addition to the tree's: lost+found in the root.
func (l *Layout) rootExtra(i int) []dirName {
	if i > 0 || !l.ownLostFound() {
		return nil
	}
	return []dirName{{name: lostFoundName, inode: format.LostFoundInode, typ: tree.Directory}}
}

// path returns the first name of the inode at a position in the order.
func (l *Layout) path(i int) string {
	path := ""
	for i > 0 {
		parent := 0
		if n := l.parents[i]; n != format.RootInode {
			parent = int(n - l.base)
		}
		for name, id := range l.t.Children(l.order[parent]) {
			if id == l.order[i] {
				if path != "" {
					name += "/" + path
				}
				path = name
				break
			}
		}
		i = parent
	}
	if path == "" {
		return "."
	}
	return path
}
