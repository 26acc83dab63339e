package check

import "github.com/banger-vm/banger/internal/image/ext4/format"

// resizeInode checks the inode that reserves the blocks behind the descriptors,
// into which the descriptors can grow (verify_reserved_gdb in
// linux/fs/ext4/resize.c). Its double indirect block lists the reserved blocks of
// group 0. Each of these lists its copies in the other groups.
func (c *checker) resizeInode() {
	fs := c.fs
	if c.sb.Compat&format.CompatResizeInode == 0 {
		return
	}
	in, err := fs.Inode(format.ResizeInode)
	if err != nil {
		return // already reported
	}
	top := uint64(le.Uint32(in.Block()[13*4:]))
	if top == 0 {
		if c.sb.ReservedGDT > 0 {
			c.problem("resize inode: no blocks")
		}
		return
	}
	c.claimData(top, 1, "resize inode")
	want := map[uint32]uint32{} // slot of the double indirect block -> block
	slots := uint32(c.sb.BlockSize / 4)
	desc := uint32(c.sb.DescBlocks())
	for i := range c.sb.ReservedGDT {
		want[(desc+i)%slots] = c.sb.FirstBlock + 1 + desc + i
	}
	c.pointers(top, want)
	copies := uint32(0)
	for i := range c.sb.ReservedGDT {
		below := map[uint32]uint32{}
		for g := uint32(1); g < uint32(len(c.groups)); g++ {
			if c.sb.HasSuper(g) {
				below[uint32(len(below))] = uint32(c.sb.GroupStart(g)) + 1 + desc + i
			}
		}
		copies = uint32(len(below))
		c.pointers(uint64(c.sb.FirstBlock+1+desc+i), below)
	}
	blocks := 1 + uint64(c.sb.ReservedGDT)*uint64(1+copies)
	if sectors := blocks * uint64(c.sb.BlockSize/512); in.Sectors != sectors {
		c.problem("resize inode: %d sectors, counted %d", in.Sectors, sectors)
	}
	for i := range 15 {
		if i != 13 && le.Uint32(in.Block()[4*i:]) != 0 {
			c.problem("resize inode: block pointer %d is set", i)
		}
	}
}

// pointers compares the block numbers in indirect block n with want. A slot that
// is not in want must be empty.
func (c *checker) pointers(n uint64, want map[uint32]uint32) {
	block := c.newBlock()
	if err := c.fs.ReadBlock(n, block); err != nil {
		c.problem("resize inode: %v", err)
		return
	}
	for i := range uint32(len(block) / 4) {
		if got := le.Uint32(block[4*i:]); got != want[i] {
			c.problem("resize inode: block %d: slot %d leads to block %d, want %d", n, i, got, want[i])
			return
		}
	}
}
