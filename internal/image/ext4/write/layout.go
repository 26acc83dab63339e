package write

import (
	"fmt"

	"github.com/banger-vm/banger/internal/image/ext4/format"
	"github.com/banger-vm/banger/internal/image/tree"
)

// Sizes of disks in bytes.
const (
	MinSize = 64 << 20
	MaxSize = maxGroups2TiB * groupBlocks * blockSize // 2 TiB: what the descriptors can grow to
)

const maxLabel = 16 // s_volume_name

// Options say what disk to make of a tree.
type Options struct {
	// Size is the size of the disk in bytes. 0 chooses it: the content and
	// Headroom in whole block groups of 128 MiB, or MinSize where that does.
	Size int64
	// Headroom is how many bytes are free over the content where Size is 0.
	// 0 stands for a quarter of the content, 32 MiB at least.
	Headroom int64
	Label    string // at most 16 bytes
	UUID     [16]byte
	HashSeed [16]byte // of directory hashes
	Created  tree.Time
	// Direct is the layer whose bodies lie where a DataFile puts them, -1 for
	// none. It has a say in the bytes of the disk, but it has none whether
	// they were in the disk before or came from a spool.
	Direct int
}

// A SizeError says that a disk cannot hold its tree.
type SizeError struct {
	Have, Need int64 // bytes
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("disk of %d bytes is too small: %d bytes (%d MiB) are needed", e.Have, e.Need, e.Need>>20)
}

// Layout is the place of everything on a disk. Beside the tree it has 28 bytes
// for each inode.
type Layout struct {
	t *tree.Tree
	o Options

	order   []tree.ID // inodes in the order of their numbers
	numbers []uint32  // by ID; 0: not in the tree
	parents []uint32  // by position in order: number of the directory of the first name
	starts  []uint32  // by position in order: where the body is in the row of data
	bodies  []body
	base    uint32 // number less position in order, but for the root
	values  uint32 // inodes of values of extended attributes
	clamped []string
	beyond  int // how many times were clamped

	size    int64 // of the disk, bytes
	blocks  int64 // of the file system; less where the last group would be too small
	data    *space
	dataEnd int64 // blocks of data's row that bodies take, gaps included
	compact bool  // data has no gaps, and Direct is not where a DataFile puts it
	meta    *space
	metaMax int64 // blocks of metadata, as far as they do not depend on where they lie
	metaEnd int64 // blocks of meta's row that are set aside
	journal span
}

// Plan decides where everything goes and finds all that is wrong with the
// tree: a *SizeError when it does not fit, a *tree.EntryError for an inode
// that ext4 cannot hold.
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

// Size returns the size of the disk in bytes.
func (l *Layout) Size() int64 { return l.size }

// Warnings says what the disk cannot hold exactly: times out of range.
func (l *Layout) Warnings() []string {
	if l.beyond == 0 {
		return nil
	}
	out := make([]string, 0, len(l.clamped)+1)
	for _, path := range l.clamped {
		out = append(out, fmt.Sprintf("%s: time is outside of 1901 to 2446, clamped", path))
	}
	if more := l.beyond - len(l.clamped); more > 0 {
		out = append(out, fmt.Sprintf("%d more times were outside of 1901 to 2446 and clamped", more))
	}
	return out
}

// number gives the inodes their numbers: the root 2, lost+found 11, then the
// directories' contents, breadth first, so that what is in one directory is
// close together.
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

// ownLostFound reports whether lost+found is not the tree's.
func (l *Layout) ownLostFound() bool { return l.base == firstInode }

// lastInode returns the highest number in use.
func (l *Layout) lastInode() uint32 {
	return l.base + uint32(len(l.order)) - 1 + l.values
}

// rootExtra is what the root directory has beside the tree's names.
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
