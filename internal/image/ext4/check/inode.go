package check

import (
	"fmt"

	"github.com/banger-vm/banger/internal/image/ext4/format"
	"github.com/banger-vm/banger/internal/image/ext4/read"
	"github.com/banger-vm/banger/internal/image/tree"
)

// inodeTable checks the inode bitmap of group n and every inode in use.
func (c *checker) inodeTable(n uint32) {
	g := &c.groups[n]
	per := c.sb.InodesPerGroup
	if g.Err != nil {
		return // already reported
	}
	bitmap := make([]byte, per/8)
	if g.Flags&format.GroupInodeUninit == 0 {
		block := c.bitmap(n, "inode", g.InodeBitmap, per/8, g.BitmapChecksums[1])
		if block == nil {
			return
		}
		c.padding(n, "inode", block, per)
		bitmap = block[:per/8]
	}
	end := per
	if c.sb.MetadataCsum() || c.sb.ROCompat&format.ROCompatGDTCsum != 0 {
		end = per - g.UnusedInodes
	}
	free, directories := per, uint32(0)
	for i := range per {
		number := n*per + i + 1
		inUse := bit(bitmap, i)
		if inUse {
			free--
		}
		switch {
		case i >= end && inUse:
			c.problem("inode %d: in use, but lies in the unused part of its group", number)
		case i < end && c.inode(number, inUse) == tree.Directory:
			directories++
		}
	}
	c.freeInodes += uint64(free)
	if free != g.FreeInodes {
		c.problem("group %d: %d free inodes, counted %d", n, g.FreeInodes, free)
	}
	if directories != g.Directories {
		c.problem("group %d: %d directories, counted %d", n, g.Directories, directories)
	}
}

// inode checks inode n, except for its names, and returns its type, or 0 if the
// inode is not in use.
func (c *checker) inode(n uint32, inUse bool) tree.Type {
	fs := c.fs
	reserved := n < c.sb.FirstInode
	if reserved && !inUse {
		c.problem("inode %d: reserved, but not in use", n)
	}
	in, err := fs.Inode(n)
	if err != nil {
		if !c.neverUsed(n, inUse && !reserved) {
			c.problem("%v", err)
		}
		return 0
	}
	if !inUse || reserved && isZero(in.Block()) && in.Links == 0 {
		return 0
	}
	s := c.state(n)
	*s = inodeState{links: in.Links, typ: in.Type, inUse: true, isValue: in.Flags&format.FlagEAInode != 0}
	if in.Links == 0 && !reserved {
		c.problem("inode %d: in use, but has no links", n)
	}
	if le.Uint32(in.Raw()[0x14:]) != 0 {
		c.problem("inode %d: in use, but has a time of deletion", n)
	}
	for _, t := range []tree.Time{in.Atime, in.Ctime, in.Mtime, in.Crtime} {
		if t.Nsec >= 1e9 && !s.isValue {
			c.problem("inode %d: %d nanoseconds", n, t.Nsec)
		}
	}
	if in.Type == tree.Directory {
		c.dirs = append(c.dirs, n)
	}
	if n != format.ResizeInode {
		c.inodeBlocks(in)
	}
	return in.Type
}

// neverUsed reports whether inode n is free and all zero. Such an inode has no
// checksum because it was never written.
func (c *checker) neverUsed(n uint32, inUse bool) bool {
	if inUse {
		return false
	}
	raw, err := c.fs.RawInode(n)
	return err == nil && isZero(raw)
}

// isZero reports whether all bytes are zero.
func isZero(raw []byte) bool {
	for _, b := range raw {
		if b != 0 {
			return false
		}
	}
	return true
}

// inodeBlocks claims the blocks of an inode, compares their number with i_blocks,
// and checks the data that the blocks hold for the inode: extended attributes and
// the target of a symlink.
func (c *checker) inodeBlocks(in *read.Inode) {
	fs := c.fs
	owner := fmt.Sprintf("inode %d", in.Number)
	count := uint64(0)
	if in.Flags&format.FlagExtents != 0 {
		extents, err := fs.Extents(in, func(block uint64) error {
			count++
			c.claimData(block, 1, owner)
			return nil
		})
		if err != nil {
			c.problem("%v", err)
			return
		}
		end := (uint64(in.Size) + uint64(c.sb.BlockSize) - 1) / uint64(c.sb.BlockSize)
		for _, e := range extents {
			count += e.Count
			c.claimData(e.Physical, e.Count, owner)
			if e.End() > end && !e.Unwritten {
				c.problem("inode %d: has blocks up to %d, but only %d by its size", in.Number, e.End(), end)
			}
		}
	} else if (in.Type == tree.Regular || in.Type == tree.Directory) && in.Flags&format.FlagInlineData == 0 && !isZero(in.Block()) {
		c.problem("inode %d: blocks are not mapped by extents", in.Number)
	}
	if in.XattrBlock != 0 {
		count++
		if c.xattrBlocks[in.XattrBlock]++; c.xattrBlocks[in.XattrBlock] == 1 {
			c.claimData(in.XattrBlock, 1, owner)
		}
	}
	// The kernel counts values in inodes of their own for the inode that uses them,
	// debugfs does not. inodeXattrs reports attributes that cannot be read.
	values := uint64(0)
	if list, err := fs.XattrEntries(in); err == nil {
		for _, x := range list {
			if x.Inode != 0 {
				values += (uint64(x.Size) + uint64(c.sb.BlockSize) - 1) / uint64(c.sb.BlockSize)
			}
		}
	}
	sectors := uint64(c.sb.BlockSize / 512)
	if want := (count + values) * sectors; in.Sectors != want && in.Sectors != count*sectors {
		c.problem("inode %d: %d sectors, counted %d", in.Number, in.Sectors, want)
	}
	c.inodeXattrs(in)
	if in.Type == tree.Symlink {
		if _, err := fs.Readlink(in); err != nil {
			c.problem("%v", err)
		}
	}
}

// inodeXattrs checks the extended attributes of an inode and counts the users of
// value inodes. It checks the hashes in a block for the block's first user.
func (c *checker) inodeXattrs(in *read.Inode) {
	if _, err := c.fs.Xattrs(in); err != nil {
		c.problem("%v", err)
		return
	}
	list, err := c.fs.XattrEntries(in)
	if err != nil {
		c.problem("%v", err)
		return
	}
	for _, x := range list {
		if x.Inode != 0 {
			c.valueInodes[x.Inode]++
		}
	}
	if in.XattrBlock == 0 || c.xattrBlocks[in.XattrBlock] > 1 {
		return
	}
	block, err := c.fs.XattrBlock(in.XattrBlock)
	if err != nil {
		return // Xattrs has failed already
	}
	if list, err = read.ParseXattrs(block, format.XattrHead); err != nil {
		return
	}
	total := uint32(0)
	for _, x := range list {
		if x.Inode == 0 && !hashFits(x) {
			c.problem("inode %d: block %d: hash of the extended attribute %q does not fit", in.Number, in.XattrBlock, x.Name)
		}
		total = total<<16 ^ total>>16 ^ x.Hash
	}
	if h := le.Uint32(block[12:]); h != 0 && h != total {
		c.problem("inode %d: block %d: hash does not fit", in.Number, in.XattrBlock)
	}
}

// hashFits reports whether e_hash is the hash of the name and of the value in
// words of 32 bits. It accepts both hashes that kernels compute: from signed and
// from unsigned characters of the name (ext4_xattr_hash_entry_signed and
// ext4_xattr_hash_entry in linux/fs/ext4/xattr.c).
func hashFits(x read.XattrEntry) bool {
	for _, signed := range []bool{false, true} {
		hash := uint32(0)
		for _, c := range []byte(x.Name) {
			word := uint32(c)
			if signed {
				word = uint32(int32(int8(c)))
			}
			hash = hash<<5 ^ hash>>27 ^ word
		}
		padded := append([]byte(nil), x.Value...)
		for len(padded)%4 != 0 {
			padded = append(padded, 0)
		}
		for ; len(padded) > 0; padded = padded[4:] {
			hash = hash<<16 ^ hash>>16 ^ le.Uint32(padded)
		}
		if hash == x.Hash {
			return true
		}
	}
	return false
}
