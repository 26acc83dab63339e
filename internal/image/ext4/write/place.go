package write

import (
	"github.com/banger-vm/banger/internal/image/ext4/format"
	"github.com/banger-vm/banger/internal/image/tree"
)

// spareBlocks is what the last group must have beside its own metadata, or it
// is left out, as mke2fs does.
const spareBlocks = 50

// journalBlocks is ext2fs_default_journal_size of e2fsprogs, at most 128 MiB,
// but for the smallest disks. A transaction of jbd2 takes at most a quarter of
// the journal, and the one that grows a file system with 255 reserved
// descriptor blocks asks for 261 blocks: with the 1024 of e2fsprogs the kernel
// stops growing such a disk at 128 MiB.
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

// usableBlocks is how many blocks of a disk the file system takes.
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

// place puts all on a disk of some blocks and returns how many stay free, less
// than 0 when it does not fit.
func (l *Layout) place(blocks int64) int64 {
	l.blocks = blocks
	groups := (blocks + groupBlocks - 1) / groupBlocks
	usable := subtract([]span{{0, blocks}}, fixed(blocks))
	if int64(l.lastInode()) > groups*groupInodes {
		return -1
	}
	metaMax := l.metaMax
	if l.compact {
		if l.data = newSpace(usable); l.data.total < l.dataEnd {
			return -1
		}
	}
	taken := l.data.taken(l.dataEnd)
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
	for _, s := range subtract(free, l.meta.taken(metaMax)) {
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

// spread gives bodies their places in the row of data: the direct layer's
// where a DataFile puts them, gaps included, or all of them without gaps.
func (l *Layout) spread(compact bool) {
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

// metaTrees is how many blocks the extent trees of directories and of other
// inodes whose blocks are in the first n of meta's row take at most. Such an
// inode is in one piece but where a span ends or an extent does, and needs a
// tree only when it has passed four of those ends; a tree has less than a block
// for each of them. The trees are in the row themselves, hence the spare span.
func (l *Layout) metaTrees(n int64) int64 {
	n = min(n, l.meta.total)
	return int64(len(l.meta.taken(n))) + n/format.MaxInitialized + 1
}

// fileTrees counts the blocks of the extent trees of all files.
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

// fileExtents maps the runs of the file at a position in the order.
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

// open places data as on a disk of any size.
func (l *Layout) open() (int64, bool) {
	l.spread(false)
	l.data = anySize()
	if l.dataEnd > l.data.total {
		return 0, false
	}
	return l.fileTrees(), true
}

// fit places all on a disk of the given size.
func (l *Layout) fit(size int64) error {
	l.size = size
	surveyed := l.metaMax
	if size >= MinSize {
		if trees, ok := l.open(); ok {
			l.metaMax = surveyed + trees
			if l.place(usableBlocks(size)) >= 0 {
				return nil
			}
		}
		l.metaMax = surveyed
		l.spread(true)
		if l.place(usableBlocks(size)) >= 0 {
			return nil
		}
	}
	l.metaMax = surveyed
	l.spread(true)
	need := l.grow(0)
	return &SizeError{Have: size, Need: need}
}

const leastHeadroom = 32 << 20

// choose places all on a disk that has the headroom.
func (l *Layout) choose() error {
	trees, ok := l.open()
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

// grow places all on the smallest disk that leaves so many bytes free and
// returns its size, more than MaxSize if there is none.
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
