package ext4

import "math/bits"

// claim notes that blocks are in use. A block that is in use already is a
// problem, and so is one that is not on the disk.
func (c *checker) claim(start, count uint64, owner string) {
	sb := &c.fs.sb
	if start < uint64(sb.firstBlock) || start >= sb.blocks || count > sb.blocks-start {
		c.problem("%s: %d blocks at block %d are not on the disk", owner, count, start)
		return
	}
	for count > 0 {
		rel := start - uint64(sb.firstBlock)
		g, from := uint32(rel/uint64(sb.blocksPerGroup)), uint32(rel%uint64(sb.blocksPerGroup))
		n := uint32(min(count, uint64(sb.blocksPerGroup-from)))
		if c.used[g] == nil {
			c.used[g] = make([]byte, sb.blocksPerGroup/8)
		}
		if taken := setBits(c.used[g], from, n); taken > 0 {
			c.problem("%s: %d of %d blocks at block %d are used twice", owner, taken, n, start)
		}
		start, count = start+uint64(n), count-uint64(n)
	}
}

// claimData is claim for what cannot lie in a group whose blocks were never
// used.
func (c *checker) claimData(start, count uint64, owner string) {
	c.claim(start, count, owner)
	sb := &c.fs.sb
	if start < uint64(sb.firstBlock) || start >= sb.blocks {
		return
	}
	if g := (start - uint64(sb.firstBlock)) / uint64(sb.blocksPerGroup); c.fs.groups[g].flags&groupBlockUninit != 0 {
		c.problem("%s: block %d lies in group %d, which has no bitmap", owner, start, g)
	}
}

// setBits sets n bits and returns how many were set before.
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

// blockBitmap compares the bitmap of group n with the blocks in use.
func (c *checker) blockBitmap(n uint32) {
	fs, g := c.fs, &c.fs.groups[n]
	want := c.used[n]
	if want == nil {
		want = make([]byte, fs.sb.blocksPerGroup/8)
	}
	size := fs.sb.groupBlocks(n)
	inUse := 0
	for _, b := range want {
		inUse += bits.OnesCount8(b)
	}
	free := size - uint32(inUse)
	c.freeBlocks += uint64(free)
	if g.err != nil {
		return // said already
	}
	if free != g.freeBlocks {
		c.problem("group %d: %d free blocks, counted %d", n, g.freeBlocks, free)
	}
	if g.flags&groupBlockUninit != 0 {
		return
	}
	block := c.bitmap(n, "block", g.blockBitmap, fs.sb.blocksPerGroup/8, g.bitmapCsums[0])
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
		c.problem("group %d: block bitmap is wrong about %d blocks, the first is block %d", n, wrong, fs.sb.groupStart(n)+uint64(first))
	}
	c.padding(n, "block", block, size)
}

// bitmap reads a bitmap and checks its checksum over its first size bytes.
func (c *checker) bitmap(n uint32, what string, at uint64, size, sum uint32) []byte {
	block := c.fs.newBlock()
	if err := c.fs.readBlock(at, block); err != nil {
		c.problem("group %d: %s bitmap: %v", n, what, err)
		return nil
	}
	want := crc(c.fs.seed, block[:size])
	if c.fs.sb.descSize < 64 {
		want &= 0xffff
	}
	if c.fs.sb.metadataCsum() && want != sum {
		c.problem("group %d: checksum of the %s bitmap does not fit", n, what)
	}
	return block
}

// padding wants the rest of a bitmap set, so that nobody allocates there.
func (c *checker) padding(n uint32, what string, block []byte, from uint32) {
	for i := from; i < uint32(len(block))*8; i++ {
		if !bit(block, i) {
			c.problem("group %d: %s bitmap has a free bit beyond its end", n, what)
			return
		}
	}
}
