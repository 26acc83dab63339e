package write

import "github.com/banger-vm/banger/internal/image/ext4/format"

// extent maps a range of blocks of a file to blocks of the disk.
type extent struct {
	logical  uint64 // first block in the file
	physical uint64 // first block on the disk
	count    uint64
}

// extentList is the extents of one inode, in ascending order.
type extentList []extent

// add maps count blocks of the file from logical to blocks of the disk from
// physical.
func (l *extentList) add(logical, physical, count int64) {
	for count > 0 {
		n := min(count, format.MaxInitialized)
		*l = append(*l, extent{logical: uint64(logical), physical: uint64(physical), count: uint64(n)})
		logical, physical, count = logical+n, physical+n, count-n
	}
}

// treeBlocks returns the number of blocks of an extent tree with n extents, without
// the root, which is in the inode.
func treeBlocks(n int) int {
	blocks := 0
	for n > extentsInInode {
		n = (n + extentsInBlock - 1) / extentsInBlock
		blocks += n
	}
	return blocks
}

// encode writes the extent tree. It writes the root to root, the i_block of the
// inode. It writes the other levels, leaves first, with put, which returns the
// number of the block that it has written. seed is that of the inode's checksums.
func (l extentList) encode(root []byte, seed uint32, put func([]byte) (int64, error)) error {
	type child struct {
		logical uint64
		block   int64
	}
	if len(l) <= extentsInInode {
		putLeaf(root, l, extentsInInode)
		return nil
	}
	var level []child
	b := make([]byte, blockSize)
	for i := 0; i < len(l); i += extentsInBlock {
		clear(b)
		part := l[i:min(i+extentsInBlock, len(l))]
		putLeaf(b, part, extentsInBlock)
		le.PutUint32(b[blockSize-4:], format.Checksum(seed, b[:blockSize-4]))
		at, err := put(b)
		if err != nil {
			return err
		}
		level = append(level, child{part[0].logical, at})
	}
	putIndexes := func(b []byte, list []child, limit, depth int) {
		putExtentHead(b, len(list), limit, depth)
		for i, c := range list { // struct ext4_extent_idx
			e := b[format.ExtentSize*(1+i):]
			le.PutUint32(e, uint32(c.logical))
			le.PutUint32(e[4:], uint32(c.block))
			le.PutUint16(e[8:], uint16(c.block>>32))
		}
	}
	depth := 1
	for ; len(level) > extentsInInode; depth++ {
		var above []child
		for i := 0; i < len(level); i += extentsInBlock {
			clear(b)
			part := level[i:min(i+extentsInBlock, len(level))]
			putIndexes(b, part, extentsInBlock, depth)
			le.PutUint32(b[blockSize-4:], format.Checksum(seed, b[:blockSize-4]))
			at, err := put(b)
			if err != nil {
				return err
			}
			above = append(above, child{part[0].logical, at})
		}
		level = above
	}
	putIndexes(root, level, extentsInInode, depth)
	return nil
}

// putLeaf writes a leaf of an extent tree with room for limit extents.
func putLeaf(b []byte, list extentList, limit int) {
	putExtentHead(b, len(list), limit, 0)
	for i, x := range list { // struct ext4_extent
		e := b[format.ExtentSize*(1+i):]
		le.PutUint32(e, uint32(x.logical))
		le.PutUint16(e[4:], uint16(x.count))
		le.PutUint16(e[6:], uint16(x.physical>>32))
		le.PutUint32(e[8:], uint32(x.physical))
	}
}

// putExtentHead writes struct ext4_extent_header of linux/fs/ext4/ext4_extents.h.
func putExtentHead(b []byte, entries, limit, depth int) {
	le.PutUint16(b, format.ExtentMagic)
	le.PutUint16(b[2:], uint16(entries))
	le.PutUint16(b[4:], uint16(limit))
	le.PutUint16(b[6:], uint16(depth))
}
