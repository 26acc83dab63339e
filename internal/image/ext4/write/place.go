package write

import (
	"github.com/banger-vm/banger/internal/image/ext4/format"
	"github.com/banger-vm/banger/internal/image/tree"
)

// spareBlocks is the smallest number of blocks that the last group must have in
// addition to its own metadata. If it has fewer, the file system ends before it,
// as with mke2fs (ext2fs_initialize in e2fsprogs).
const spareBlocks = 50

// journalBlocks returns the number of blocks of the journal of a disk with so many
// blocks. It is that of ext2fs_default_journal_size in e2fsprogs with two
// exceptions. The largest journals have 128 MiB. The smallest have 1280 blocks
// instead of 1024: with 1024 the kernel cannot grow a disk beyond 128 MiB, because
// jbd2 allows a transaction a quarter of the journal and growing takes 261 blocks
// if 255 descriptor blocks are reserved.
func journalBlocks(blocks int64) int64 {
	for _, step := range [...]struct{ below, size int64 }{
		{32768, 1280}, {256 << 10, 4096}, {512 << 10, 8192}, {4096 << 10, 16384},
	} {
		if blocks < step.below {
			return step.size
		}
	}
	return 32768
}

// usableBlocks returns the number of blocks that the file system takes on a disk
// of size bytes.
func usableBlocks(size int64) int64 {
	blocks := size / blockSize
	last := blocks / groupBlocks
	rest := blocks % groupBlocks
	need := int64(spareBlocks)
	switch {
	case last%flexGroups == 0:
		need += 2*flexGroups + tableBlocks
	case hasBackup(last):
		need += backupBlocks
	}
	if rest < need && last > 0 {
		blocks -= rest
	}
	return blocks
}

// place places data, metadata and journal on a disk of so many blocks. It returns
// the number of blocks that stay free, or -1 if the disk is too small.
func (l *Layout) place(blocks int64) int64 {
	l.blocks = blocks
	groups := (blocks + groupBlocks - 1) / groupBlocks
	usable := subtract([]span{{0, blocks}}, fixedSpans(blocks))
	if int64(l.lastInode()) > groups*groupInodes {
		return -1
	}
	metaMax := l.metaMax
	if l.compact {
		if l.data = newSpace(usable); l.data.total < l.dataEnd {
			return -1
		}
	}
	taken := l.data.prefix(l.dataEnd)
	if n := len(taken); n > 0 && taken[n-1].end > blocks {
		return -1
	}
	if l.compact {
		metaMax += l.fileTrees()
	}
	free := subtract(usable, taken)
	l.meta = newSpace(free)
	if metaMax += l.metaTrees(metaMax); l.meta.total < metaMax {
		return -1
	}
	l.metaEnd = metaMax
	want := journalBlocks(blocks)
	rest := int64(-1)
	for _, s := range subtract(free, l.meta.prefix(metaMax)) {
		if rest < 0 && s.end-s.start >= want {
			l.journal = span{s.start, s.start + want}
			rest = 0
		}
	}
	if rest < 0 {
		return -1
	}
	return l.meta.total - metaMax - want
}

// placeBodies sets the positions of the bodies in the data space. If compact is
// set, no body has a gap before it. Otherwise the bodies of the direct layer are
// where a DataFile puts them, with gaps in place of the bodies that later layers
// replace.
func (l *Layout) placeBodies(compact bool) {
	l.compact, l.dataEnd = compact, 0
	for i := range l.bodies {
		b := &l.bodies[i]
		if b.rank() == 0 && !compact {
			l.dataEnd = b.spoolBlock()
		}
		l.starts[b.inode] = uint32(l.dataEnd)
		l.dataEnd += int64(b.blocks)
	}
}

// metaTrees returns an upper bound of the blocks of the extent trees that map the
// first n blocks of the metadata space, for example those of directories. An
// inode there needs one extent more for each end of a span, and for each maximum
// length of an extent, that it crosses. It needs a tree only if it crosses more
// than four, and a tree has fewer blocks than it has such crossings. The trees are
// in the metadata space, too: the block added at the end is for the span that they
// may begin.
func (l *Layout) metaTrees(n int64) int64 {
	n = min(n, l.meta.total)
	return int64(len(l.meta.prefix(n))) + n/format.MaxInitialized + 1
}

// fileTrees returns the number of blocks of the extent trees of all regular files.
func (l *Layout) fileTrees() int64 {
	var list extentList
	blocks := int64(0)
	for i := range l.bodies {
		b := &l.bodies[i]
		in := l.t.Inode(l.order[b.inode])
		if in.Body.Runs == nil && b.blocks <= 2 {
			continue
		}
		list = l.fileExtents(list[:0], int(b.inode), &in)
		blocks += int64(treeBlocks(len(list)))
	}
	return blocks
}

// fileExtents appends the extents of the regular file at a position in the order
// to list.
func (l *Layout) fileExtents(list extentList, i int, in *tree.Inode) extentList {
	pos := int64(l.starts[i])
	bodyRuns(in, func(r tree.Run) {
		logical, n := r.Offset/blockSize, blocksOf(r.Length)
		l.data.each(pos, n, func(block, count int64) {
			list.add(logical, block, count)
			logical += count
		})
		pos += n
	})
	return list
}

// placeForAnySize places the bodies in the blocks that can hold data on a disk of any
// size. It returns the number of blocks of their extent trees. It reports false if
// the bodies do not fit into the largest disk.
func (l *Layout) placeForAnySize() (int64, bool) {
	l.placeBodies(false)
	l.data = anySizeSpace()
	if l.dataEnd > l.data.total {
		return 0, false
	}
	return l.fileTrees(), true
}

// fit lays out a disk of size bytes. If the tree does not fit with gaps between the
// bodies, fit tries without gaps.
func (l *Layout) fit(size int64) error {
	l.size = size
	surveyed := l.metaMax
	if size >= MinSize {
		if trees, ok := l.placeForAnySize(); ok {
			l.metaMax = surveyed + trees
			if l.place(usableBlocks(size)) >= 0 {
				return nil
			}
		}
		l.metaMax = surveyed
		l.placeBodies(true)
		if l.place(usableBlocks(size)) >= 0 {
			return nil
		}
	}
	l.metaMax = surveyed
	l.placeBodies(true)
	need := l.grow(0)
	return &SizeError{Have: size, Need: need}
}

const leastHeadroom = 32 << 20 // bytes

// choose lays out the smallest disk that has the headroom.
func (l *Layout) choose() error {
	trees, ok := l.placeForAnySize()
	if !ok {
		return &SizeError{Have: MaxSize, Need: l.dataEnd * blockSize}
	}
	l.metaMax += trees
	headroom := l.o.Headroom
	if headroom == 0 {
		headroom = max((l.dataEnd+l.metaMax)*blockSize/4, leastHeadroom)
	}
	l.size = l.grow(headroom)
	if l.size > MaxSize {
		return &SizeError{Have: MaxSize, Need: l.size}
	}
	return nil
}

// grow lays out the smallest disk on which headroom bytes stay free, and returns
// its size in bytes. The size is above MaxSize if there is no such disk.
func (l *Layout) grow(headroom int64) int64 {
	const group = groupBlocks * blockSize
	inodes := int64(l.lastInode())
	if headroom > 0 {
		inodes += inodes / 4
	}
	enough := func(size int64) bool {
		groups := (size + group - 1) / group
		return groups*groupInodes >= inodes && l.place(size/blockSize)*blockSize >= headroom
	}
	if headroom < MaxSize && enough(MinSize) {
		return MinSize
	}
	size := max((l.dataEnd+l.metaMax)*blockSize+headroom, 0) / group * group
	for size = max(size, group); size <= MaxSize && !enough(size); {
		size += group
	}
	return size
}
