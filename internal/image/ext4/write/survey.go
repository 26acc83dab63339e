package write

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/banger-vm/banger/internal/image/ext4/format"
	"github.com/banger-vm/banger/internal/image/tree"
)

const maxClampedPaths = 5 // paths that Warnings names

// lostFoundBlocks is the number of blocks of lost+found, as with mke2fs. They are
// allocated in advance so that e2fsck need not allocate blocks on a damaged disk.
const lostFoundBlocks = 4

// survey checks every inode and counts the blocks of metadata whose number does not
// depend on places: all except those of extent trees.
func (l *Layout) survey() error {
	l.metaMax = 1 // the resize inode's
	if l.ownLostFound() {
		l.metaMax += lostFoundBlocks
	}
	dirs := dirBuilder{hash: newDirHash(l.o.HashSeed)}
	for i, id := range l.order {
		in := l.t.Inode(id)
		n, err := l.inodeBlocks(i, in, &dirs)
		if err != nil {
			return &tree.EntryError{Name: l.path(i), Err: err}
		}
		l.metaMax += n
		if _, ok := encodeTime(in.Mtime); !ok {
			if l.clampedTimes++; len(l.clampedPaths) < maxClampedPaths {
				l.clampedPaths = append(l.clampedPaths, l.path(i))
			}
		}
	}
	return nil
}

// inodeBlocks checks the inode at a position in the order and returns the number
// of its blocks of metadata, without its extent tree.
func (l *Layout) inodeBlocks(i int, in tree.Inode, dirs *dirBuilder) (int64, error) {
	blocks := int64(0)
	if len(in.Xattrs) > 0 {
		set, err := makeXattrs(in.Xattrs)
		if err != nil {
			return 0, err
		}
		blocks += set.blocks()
		l.valueInodes += uint32(set.values)
	}
	if in.Links > format.MaxLinks {
		return 0, fmt.Errorf("%d hard links: the most is %d", in.Links, format.MaxLinks)
	}
	switch in.Type {
	case tree.Regular:
		return blocks, checkBody(in)
	case tree.Directory:
		dirs.load(l.t, l.order[i], l.numbers, l.rootExtra(i)...)
		n, err := dirs.blocks()
		if err != nil {
			return 0, err
		}
		if l.numberAt(i) == format.LostFoundInode {
			n = max(n, lostFoundBlocks)
		}
		return blocks + int64(n), nil
	case tree.Symlink:
		if len(in.Target) == 0 || len(in.Target) >= blockSize {
			return 0, fmt.Errorf("symlink target of %d bytes: 1 to %d are possible", len(in.Target), blockSize-1)
		}
		if len(in.Target) > fastSymlink {
			blocks++
		}
	case tree.CharDevice, tree.BlockDevice:
		if in.Major >= 1<<12 || in.Minor >= 1<<20 {
			return 0, fmt.Errorf("device %d:%d: the most is 4095:1048575", in.Major, in.Minor)
		}
	case tree.Fifo:
	case tree.HardLink:
		return 0, fmt.Errorf("%v as an inode", in.Type)
	}
	return blocks, nil
}

// blocks returns the number of blocks that the attributes take outside of the
// inode.
func (s *xattrSet) blocks() int64 {
	n := int64(0)
	if len(s.block) > 0 {
		n++
	}
	for i := range s.block {
		if s.block[i].inode != 0 {
			n += blocksOf(int64(s.block[i].size))
		}
	}
	return n
}

// blocksOf returns the number of blocks that hold so many bytes.
func blocksOf(bytes int64) int64 { return (bytes + blockSize - 1) / blockSize }

// bodyRuns calls do for each run of a file's data. A body without a list of runs is
// one run.
func bodyRuns(in *tree.Inode, do func(r tree.Run)) {
	if in.Body.Runs == nil && in.Size > 0 {
		do(tree.Run{Length: in.Size})
	}
	for _, r := range in.Body.Runs {
		do(r)
	}
}

// checkBody returns an error if the body of a file is too large or its runs are out
// of order. Without an error, arithmetic on the numbers of the body cannot
// overflow.
func checkBody(in tree.Inode) error {
	if in.Size < 0 || blocksOf(in.Size) > maxFileBlocks {
		return fmt.Errorf("file of %d bytes: the most is %d", in.Size, int64(maxFileBlocks)*blockSize)
	}
	if in.Body.Offset < 0 || in.Body.Offset%blockSize != 0 || in.Body.Offset >= MaxSize {
		return fmt.Errorf("data at %d of the spool", in.Body.Offset)
	}
	end := int64(0)
	for i, r := range in.Body.Runs {
		last := i == len(in.Body.Runs)-1
		if r.Length <= 0 || r.Offset < end || r.Offset%blockSize != 0 || r.Offset > in.Size || r.Length > in.Size-r.Offset ||
			r.Length%blockSize != 0 && !last {
			return fmt.Errorf("data of %d bytes at %d of the file", r.Length, r.Offset)
		}
		end = r.Offset + r.Length
	}
	return nil
}

// body is the data of a regular file.
type body struct {
	key    uint64 // rank of its layer, and in the low spoolBits its block in the spool
	blocks uint32
	inode  uint32 // position in the order
}

const spoolBits = 40 // bits of a body's key that hold a block number

func (b *body) spoolBlock() int64 { return int64(b.key & (1<<spoolBits - 1)) }

func (b *body) rank() int { return int(b.key >> spoolBits) }

// rank returns the rank of a layer on the disk. The direct layer has rank 0, the
// others follow in their order.
func (l *Layout) rank(layer int) int {
	if layer == l.o.Direct {
		return 0
	}
	return layer + 1
}

// layerOf returns the layer of a rank.
func (l *Layout) layerOf(rank int) int {
	if rank == 0 {
		return l.o.Direct
	}
	return rank - 1
}

// sortBodies lists the bodies in their order on the disk: the bodies of the direct
// layer, then those of the others, each layer in the order of its spool. It
// returns an error if two bodies overlap or if all of them exceed the largest
// disk.
func (l *Layout) sortBodies() error {
	total := int64(0)
	for id := tree.Root; id < l.t.EndID(); id++ {
		if l.numbers[id] == 0 || l.t.Type(id) != tree.Regular {
			continue
		}
		in := l.t.Inode(id)
		blocks := int64(0)
		bodyRuns(&in, func(r tree.Run) { blocks += blocksOf(r.Length) })
		if blocks == 0 {
			continue
		}
		if total += blocks; total > MaxSize/blockSize {
			return &SizeError{Have: MaxSize, Need: total * blockSize}
		}
		l.bodies = append(l.bodies, body{
			key:    uint64(l.rank(in.Body.Layer))<<spoolBits | uint64(in.Body.Offset/blockSize),
			blocks: uint32(blocks), inode: l.numbers[id] - l.base,
		})
	}
	slices.SortFunc(l.bodies, func(a, b body) int { return cmp.Compare(a.key, b.key) })
	for i := 1; i < len(l.bodies); i++ {
		a, b := &l.bodies[i-1], &l.bodies[i]
		if a.rank() == b.rank() && b.spoolBlock() < a.spoolBlock()+int64(a.blocks) {
			return &tree.EntryError{Name: l.path(int(b.inode)), Err: errors.New("data overlaps another file's")}
		}
	}
	l.starts = make([]uint32, len(l.order))
	return nil
}
