package check

import (
	"encoding/binary"

	"github.com/banger-vm/banger/internal/image/ext4/format"
	"github.com/banger-vm/banger/internal/image/ext4/read"
	"github.com/banger-vm/banger/internal/image/tree"
)

// jbd2Checksums is the set of feature bits of a journal whose superblock has a
// checksum: JBD2_FEATURE_INCOMPAT_CSUM_V2 and _V3 in linux/include/linux/jbd2.h.
const jbd2Checksums = 0x8 | 0x10

// journal checks the superblock of the journal, journal_superblock_t in
// linux/include/linux/jbd2.h, whose numbers are big-endian. It does not check the
// rest because the journal is empty: package read refuses a disk whose journal
// must be replayed.
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
		return // already reported
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
		name  string
		at    int
		value uint32
	}{
		{"magic number", 0, format.JournalMagic},
		{"type", 4, format.JournalSuperblockV2},
		{"block size", 0xc, uint32(c.sb.BlockSize)},
		{"length", 0x10, uint32(in.Size / int64(c.sb.BlockSize))},
		{"first block", 0x14, 1},
		{"start", 0x1c, 0},
		{"error", 0x20, 0},
	} {
		if got := field(want.at); got != want.value {
			c.problem("journal: %s %#x, want %#x", want.name, got, want.value)
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

// plainJournal checks a journal superblock without a checksum on a file system
// with checksums. The kernel adds a checksum to the journal at the first mount,
// so this journal was never used, and every field must have its initial value.
func (c *checker) plainJournal(raw []byte) {
	field := func(at int) uint32 { return binary.BigEndian.Uint32(raw[at:]) }
	if !c.sb.MetadataCsum() {
		return
	}
	for at := 8; at < format.SuperSize; at += 4 {
		want := uint32(0)
		switch {
		case at >= 0xc && at < 0x18, at == 0x1c, at == 0x20: // journal has checked these
			continue
		case at == 0x18, at == 0x40: // s_sequence, s_nr_users
			want = 1
		case at >= 0x30 && at < 0x40: // s_uuid: zero or that of this file system
			if field(at) == binary.BigEndian.Uint32(c.sb.UUID[at-0x30:]) {
				continue
			}
		case at >= 0x100 && at < 0x110: // s_users: the UUID of the first user
			if field(at) == binary.BigEndian.Uint32(c.sb.UUID[at-0x100:]) {
				continue
			}
		}
		if got := field(at); got != want {
			c.problem("journal: %#x at %#x, want %#x", got, at, want)
		}
	}
}

// journalBackup checks s_jnl_blocks, the copy of the journal's inode in the
// superblock: i_block, then the high and the low half of the size.
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
