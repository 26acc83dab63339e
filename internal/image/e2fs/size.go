package e2fs

import (
	"fmt"

	"github.com/banger-vm/banger/internal/image/tree"
)

// MinSize is the smallest disk in bytes.
const MinSize = 64 << 20

// Constants of the geometry, which are the same on every disk; see
// mke2fsConfig.
const (
	blockSize      = 4096
	inodeSize      = 256
	maxLabel       = 16                        // s_volume_name
	groupBlocks    = 8 * blockSize             // blocks that one bitmap block covers
	groupInodes    = 8 * blockSize             // inodes that one bitmap block covers, the most that a group has
	inodesPerBlock = blockSize / inodeSize     // a group has a multiple of these
	descBlocks     = 256                       // for descriptors and the reserve for more, equal to the native builder
	descPerBlock   = blockSize / 64            // 64-byte descriptors
	maxResize      = descBlocks * descPerBlock // groups that descBlocks can describe: 2 TiB
	lostFoundSize  = 4                         // blocks; mkfs.ext4 preallocates 16 KiB
	firstInode     = 11                        // s_first_ino: 1 to 10 are reserved
	lostFound      = "lost+found"
	bytesPerInode  = 16384 // inode_ratio of the stock mke2fs.conf
)

// A SizeError is the error for a disk that is too small for its tree.
type SizeError struct {
	Have, Need int64 // bytes
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("disk of %d bytes is too small: %d bytes (%d MiB) are needed", e.Have, e.Need, e.Need>>20)
}

// content is the space that a tree takes on a disk. blocks is an upper bound:
// mkfs.ext4 leaves out blocks of zeros that it finds in files, and may pack
// names more tightly.
type content struct {
	bytes  int64 // file data to copy
	blocks int64 // of data, directories, long symlinks, extents and attributes
	inodes int64 // largest number in use during the build, the reserved ones included
}

// add counts one name of inode id. again is set if add has counted another
// name of the inode before.
func (c *content) add(t *tree.Tree, id tree.ID, in tree.Inode, again bool) {
	if in.Type == tree.Regular && again {
		return
	}
	// Other types have one inode for each name until linkNames replaces them
	// by hard links, so all names count.
	c.inodes++
	if splitXattrs(in.Xattrs).block {
		c.blocks++
	}
	switch in.Type {
	case tree.Regular:
		c.addFile(in)
	case tree.Directory:
		n := dirBlocks(t, id)
		c.blocks += n + extentBlocks(n)
	case tree.Symlink:
		const inInode = 59 // bytes: i_block without the final NUL
		if len(in.Target) > inInode {
			c.blocks++
		}
	}
}

func (c *content) addFile(in tree.Inode) {
	data, runs := int64(0), int64(0)
	for _, r := range bodyRuns(in) {
		c.bytes += r.Length
		data += (r.Length + blockSize - 1) / blockSize
		runs++
	}
	// An extent has at most 32768 blocks and ends at the metadata of a group.
	// One more extent is for the end of a piece of free space.
	c.blocks += data + extentBlocks(runs+2*(data/groupBlocks)+1)
}

// finish adds the blocks and inodes that every disk has, and a reserve because
// free space may be in smaller pieces than files.
func (c *content) finish(t *tree.Tree) {
	const resizeInode, slack = 1, 16
	c.blocks += resizeInode + lostFoundSize + slack + c.blocks/1024
	c.inodes += firstInode - 1
	for name := range t.Children(tree.Root) {
		if name == lostFound {
			return
		}
	}
	c.inodes++
}

// hostBytes returns an upper bound of the bytes that a build takes on the host:
// the content in the staging folder and on the disk, the inodes of both, and the
// script for debugfs.
func (c *content) hostBytes() int64 {
	const copies, script = 2, 640 // bytes of commands for an inode
	return copies*(c.blocks*blockSize+c.inodes*inodeSize) + c.inodes*script
}

// extentBlocks returns the largest number of blocks that the extent tree of a
// file with n extents takes. The inode holds 4 extents and a block 340, and
// libext2fs splits full blocks in halves.
func extentBlocks(n int64) int64 {
	const inInode, half = 4, 170
	if n <= inInode {
		return 0
	}
	return n/half + n/(half*half) + 2
}

// dirBlocks returns the largest number of blocks that a linear directory
// takes. A record does not cross blocks, and each block ends with a checksum.
func dirBlocks(t *tree.Tree, id tree.ID) int64 {
	const head, align, dots, tail = 8, 4, 24, 12
	blocks, used := int64(1), int64(dots)
	for name := range t.Children(id) {
		n := roundUp(int64(head+len(name)), align)
		if used+n > blockSize-tail {
			blocks++
			used = 0
		}
		used += n
	}
	return blocks
}

// geometry is the layout that mkfs.ext4 gives a file system.
type geometry struct {
	size    int64 // of the disk, bytes
	blocks  int64 // of the file system
	journal int64 // blocks
	inodes  int64 // in all groups
	free    int64 // blocks for content
	resize  int64 // blocks to which the file system can grow with its descriptor blocks; 0 is the choice of mkfs.ext4
}

// layout computes the geometry of a disk of size bytes with at least want
// inodes, or the most that it can have.
func layout(size, want int64) geometry {
	g := geometry{size: size, blocks: size / blockSize}
	desc := int64(descBlocks)
	g.resize = maxResize * groupBlocks
	if groups := (g.blocks + groupBlocks - 1) / groupBlocks; groups >= maxResize {
		const mostReserved = blockSize / 4 // block numbers in the resize inode's double indirect block
		desc, g.resize = (groups+descPerBlock-1)/descPerBlock+mostReserved, 0
	}
	for {
		groups := (g.blocks + groupBlocks - 1) / groupBlocks
		perGroup := min(roundUp((want+groups-1)/groups, inodesPerBlock), groupInodes)
		inGroup := 2 + perGroup/inodesPerBlock // two bitmaps and the inode table
		g.inodes = groups * perGroup
		g.journal = journalBlocks(g.blocks)
		g.free = g.blocks - g.journal - groups*inGroup
		for i := range groups {
			if hasSuper(i) {
				g.free -= 1 + desc
			}
		}
		last := g.blocks % groupBlocks
		if hasSuper(groups - 1) {
			inGroup += 1 + desc
		}
		// ext2fs_initialize drops the last group if it has fewer blocks than
		// its metadata and worthwhile more.
		const worthwhile = 50
		if groups == 1 || last == 0 || last >= inGroup+worthwhile {
			return g
		}
		g.blocks -= last
	}
}

// hasSuper reports whether a group has a copy of the superblock and of the
// descriptors: groups 0 and 1, and the powers of 3, 5 and 7 (sparse_super).
func hasSuper(group int64) bool {
	if group <= 1 {
		return true
	}
	for _, base := range []int64{3, 5, 7} {
		n := base
		for n < group {
			n *= base
		}
		if n == group {
			return true
		}
	}
	return false
}

// journalBlocks returns the size of the journal that mke2fs chooses
// (ext2fs_default_journal_size), at most 128 MiB.
func journalBlocks(blocks int64) int64 {
	for _, step := range []struct{ below, journal int64 }{
		{32 << 10, 1 << 10}, {256 << 10, 4 << 10}, {512 << 10, 8 << 10}, {4 << 20, 16 << 10},
	} {
		if blocks < step.below {
			return step.journal
		}
	}
	return 32 << 10
}

// inodesFor returns the number of inodes that a disk of size bytes should
// have: one for each bytesPerInode, or more if the tree needs more.
func (c content) inodesFor(size int64) int64 {
	return max(size/bytesPerInode, c.inodes+c.inodes/4+1024)
}

// layout returns the geometry of a disk of size bytes, and reports whether it
// holds the content and room more blocks.
func (c content) layout(size, room int64) (geometry, bool) {
	g := layout(size, c.inodesFor(size))
	return g, g.free >= c.blocks+room && g.inodes >= c.inodes
}

// fit returns the smallest multiple of step that holds the content and room
// more blocks.
func (c content) fit(room, step int64) geometry {
	size := roundUp(max(MinSize, (c.blocks+room)*blockSize), step)
	for {
		g, ok := c.layout(size, room)
		if ok {
			return g
		}
		// Metadata grows slower than the disk. So the loop ends after a few
		// steps, and does not skip a size that is large enough.
		size += max(step, (c.blocks+room-g.free)*blockSize/step*step)
	}
}

// plan chooses the geometry. It returns a *SizeError if o.Size is too small.
func plan(c content, o Options) (geometry, error) {
	const mib = 1 << 20
	if o.Size != 0 {
		g, ok := c.layout(o.Size, 0)
		if o.Size < MinSize || !ok {
			return geometry{}, &SizeError{Have: o.Size, Need: c.fit(0, mib).size}
		}
		return g, nil
	}
	const leastRoom, step = 32 * mib, 64 * mib
	room := o.Headroom
	if room == 0 {
		room = max(leastRoom, c.blocks*blockSize/4)
	}
	return c.fit((room+blockSize-1)/blockSize, step), nil
}
