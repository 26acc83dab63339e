package check

import (
	"encoding/binary"

	"github.com/banger-vm/banger/internal/image/ext4/format"
	"github.com/banger-vm/banger/internal/image/ext4/read"
	"github.com/banger-vm/banger/internal/image/tree"
)

// Feature bits of a journal that has a checksum, linux/include/linux/jbd2.h.
const jbd2Checksums = 0x8 | 0x10

// journal checks the superblock of the journal, whose numbers are big-endian
// (journal_superblock_t in linux/include/linux/jbd2.h). What it holds is of no
// interest: it has been replayed.
func (c *checker) journal() {
	fs := c.fs
	if c.sb.Compat&format.CompatHasJournal == 0 {
		return
	}
	if n := le.Uint32(c.sb.Raw[0xe0:]); n != format.JournalInode {
		c.problem("superblock: journal is inode %d", n)
		return
	}
	in, err := fs.Inode(format.JournalInode)
	if err != nil {
		return // said already
	}
	f, err := fs.Data(in)
	if err != nil || in.Type != tree.Regular {
		c.problem("journal: inode %d is not a file (%v)", format.JournalInode, err)
		return
	}
	raw := make([]byte, format.SuperSize)
	if _, err := f.ReadAt(raw, 0); err != nil {
		c.problem("journal: %v", err)
		return
	}
	field := func(at int) uint32 { return binary.BigEndian.Uint32(raw[at:]) }
	for _, want := range []struct {
		what  string
		at    int
		value uint32
	}{
		{"magic number", 0, 0xc03b3998},
		{"type", 4, 4},
		{"block size", 0xc, uint32(c.sb.BlockSize)},
		{"length", 0x10, uint32(in.Size / int64(c.sb.BlockSize))},
		{"first block", 0x14, 1},
		{"start", 0x1c, 0},
		{"error", 0x20, 0},
	} {
		if got := field(want.at); got != want.value {
			c.problem("journal: %s %#x, want %#x", want.what, got, want.value)
		}
	}
	if field(0x28)&jbd2Checksums != 0 {
		if format.ChecksumWithout(^uint32(0), raw, 0xfc, 0x100) != field(0xfc) {
			c.problem("journal: checksum does not fit")
		}
	} else {
		c.plainJournal(raw)
	}
	c.journalBackup(in)
}

// plainJournal checks a journal superblock without a checksum: every bit of
// it has one value that it can have. On a file system with checksums the
// kernel adds one to the journal at the first mount, so that this is a
// journal which was never used.
func (c *checker) plainJournal(raw []byte) {
	field := func(at int) uint32 { return binary.BigEndian.Uint32(raw[at:]) }
	if !c.sb.MetadataCsum() {
		return
	}
	// The header's own sequence; features; then all behind the number of users.
	for at := 8; at < format.SuperSize; at += 4 {
		want := uint32(0)
		switch {
		case at >= 0xc && at < 0x18, at == 0x1c, at == 0x20:
			continue
		case at == 0x18, at == 0x40: // sequence, users
			want = 1
		case at >= 0x30 && at < 0x40: // UUID of an outside journal, or of this file system
			if field(at) == binary.BigEndian.Uint32(c.sb.UUID[at-0x30:]) {
				continue
			}
		case at >= 0x100 && at < 0x110: // UUID of the first user
			if field(at) == binary.BigEndian.Uint32(c.sb.UUID[at-0x100:]) {
				continue
			}
		}
		if got := field(at); got != want {
			c.problem("journal: %#x at %#x, want %#x", got, at, want)
		}
	}
}

// journalBackup checks the copy of the journal's place in the superblock:
// i_block, and the halves of the size, the high one first.
func (c *checker) journalBackup(in *read.Inode) {
	raw := c.sb.Raw[:]
	if raw[0xfd] != 1 {
		return // there is none
	}
	saved := raw[0x10c:][:68]
	if string(saved[:60]) != string(in.Block()) ||
		le.Uint32(saved[60:]) != uint32(in.Size>>32) || le.Uint32(saved[64:]) != uint32(in.Size) {
		c.problem("superblock: the backup of the journal's inode differs")
	}
}

// format.ResizeInode checks the inode that keeps the blocks behind the descriptors
// for their growth: a double indirect block that lists the reserved blocks of
// group 0, each of which lists its copies in the other groups.
func (c *checker) resizeInode() {
	fs := c.fs
	if c.sb.Compat&format.CompatResizeInode == 0 {
		return
	}
	in, err := fs.Inode(format.ResizeInode)
	if err != nil {
		return // said already
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

// pointers compares the block numbers in an indirect block. Slots that want
// does not name must be empty.
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
