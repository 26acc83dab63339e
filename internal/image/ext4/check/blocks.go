package check

import (
	"math/bits"

	"github.com/banger-vm/banger/internal/image/ext4/format"
)

// claim records that blocks are in use. It reports a problem if a block is in use
// already or lies outside of the file system.
func (c *checker) claim(start, count uint64, owner string) {
	sb := c.sb
	if start < uint64(sb.FirstBlock) || start >= sb.Blocks || count > sb.Blocks-start {
		c.problem("%s: %d blocks at block %d are not on the disk", owner, count, start)
		return
	}
	for count > 0 {
		rel := start - uint64(sb.FirstBlock)
		g, from := uint32(rel/uint64(sb.BlocksPerGroup)), uint32(rel%uint64(sb.BlocksPerGroup))
		n := uint32(min(count, uint64(sb.BlocksPerGroup-from)))
		if c.used[g] == nil {
			c.used[g] = make([]byte, sb.BlocksPerGroup/8)
		}
		if taken := setBits(c.used[g], from, n); taken > 0 {
			c.problem("%s: %d of %d blocks at block %d are used twice", owner, taken, n, start)
		}
		start, count = start+uint64(n), count-uint64(n)
	}
}

// claimData claims blocks that an inode uses. It also reports a problem if they
// are in a group whose block bitmap was never written: no block of such a group
// can be allocated.
func (c *checker) claimData(start, count uint64, owner string) {
	c.claim(start, count, owner)
	sb := c.sb
	if start < uint64(sb.FirstBlock) || start >= sb.Blocks {
		return
	}
	if g := (start - uint64(sb.FirstBlock)) / uint64(sb.BlocksPerGroup); c.groups[g].Flags&format.GroupBlockUninit != 0 {
		c.problem("%s: block %d lies in group %d, which has no bitmap", owner, start, g)
	}
}

// setBits sets n bits and returns the number of them that were set before.
func setBits(bitmap []byte, from, n uint32) (taken int) {
	for n > 0 {
		shift := from % 8
		k := min(8-shift, n)
		mask := byte((1<<k - 1) << shift)
		taken += bits.OnesCount8(bitmap[from/8] & mask)
		bitmap[from/8] |= mask
		from, n = from+k, n-k
	}
	return taken
}

func bit(bitmap []byte, i uint32) bool { return bitmap[i/8]&(1<<(i%8)) != 0 }

// blockBitmap compares the block bitmap of group n with the blocks in use.
func (c *checker) blockBitmap(n uint32) {
	g := &c.groups[n]
	want := c.used[n]
	if want == nil {
		want = make([]byte, c.sb.BlocksPerGroup/8)
	}
	size := c.sb.GroupBlocks(n)
	inUse := 0
	for _, b := range want {
		inUse += bits.OnesCount8(b)
	}
	free := size - uint32(inUse)
	c.freeBlocks += uint64(free)
	if g.Err != nil {
		return // already reported
	}
	if free != g.FreeBlocks {
		c.problem("group %d: %d free blocks, counted %d", n, g.FreeBlocks, free)
	}
	if g.Flags&format.GroupBlockUninit != 0 {
		return
	}
	block := c.bitmap(n, "block", g.BlockBitmap, c.sb.BlocksPerGroup/8, g.BitmapChecksums[0])
	if block == nil {
		return
	}
	wrong, first := 0, uint32(0)
	for i := range size {
		if bit(block, i) != bit(want, i) {
			if wrong++; wrong == 1 {
				first = i
			}
		}
	}
	if wrong > 0 {
		c.problem("group %d: block bitmap is wrong about %d blocks, the first is block %d", n, wrong, c.sb.GroupStart(n)+uint64(first))
	}
	c.padding(n, "block", block, size)
}

// bitmap reads the bitmap of group n in block at and verifies the checksum of its
// first size bytes. It returns nil if it cannot be read.
func (c *checker) bitmap(n uint32, kind string, at uint64, size, sum uint32) []byte {
	block := c.newBlock()
	if err := c.fs.ReadBlock(at, block); err != nil {
		c.problem("group %d: %s bitmap: %v", n, kind, err)
		return nil
	}
	want := format.Checksum(c.sb.ChecksumSeed, block[:size])
	if c.sb.DescSize < 64 {
		want &= 0xffff
	}
	if c.sb.MetadataCsum() && want != sum {
		c.problem("group %d: checksum of the %s bitmap does not fit", n, kind)
	}
	return block
}

// padding reports a problem if a bit from from on is not set. The bits behind the
// end of a group must be set because they cannot be allocated.
func (c *checker) padding(n uint32, kind string, block []byte, from uint32) {
	for i := from; i < uint32(len(block))*8; i++ {
		if !bit(block, i) {
			c.problem("group %d: %s bitmap has a free bit beyond its end", n, kind)
			return
		}
	}
}
