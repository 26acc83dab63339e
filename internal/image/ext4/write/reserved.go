package write

import (
	"encoding/binary"

	"github.com/banger-vm/banger/internal/image/ext4/format"
	"github.com/banger-vm/banger/internal/image/tree"
)

// journalInode returns the inode of the journal, which is one extent.
func (w *writer) journalInode() *diskInode {
	n := w.journal.end - w.journal.start
	d := &diskInode{
		mode: format.ModeRegular | 0o600, links: 1, size: n * blockSize, sectors: uint64(n) * blockSectors, flags: format.FlagExtents,
		atime: w.created, ctime: w.created, mtime: w.created, crtime: w.created,
	}
	var list extentList
	list.add(0, w.journal.start, n)
	putLeaf(d.block[:], list, extentsInInode)
	return d
}

// writeJournal writes the superblock of an empty journal: struct
// journal_superblock_s of linux/include/linux/jbd2.h, whose numbers are big-endian.
func (w *writer) writeJournal() error {
	b := make([]byte, format.SuperSize)
	for at, v := range map[int]uint32{
		0x00: format.JournalMagic,        // h_magic
		0x04: format.JournalSuperblockV2, // h_blocktype
		0x0c: blockSize,
		0x10: uint32(w.journal.end - w.journal.start), // s_maxlen
		0x14: 1,                                       // s_first
		0x18: 1,                                       // s_sequence
		0x40: 1,                                       // s_nr_users
	} {
		binary.BigEndian.PutUint32(b[at:], v)
	}
	_, err := w.disk.WriteAt(b, w.journal.start*blockSize)
	return err
}

// reserved writes the inodes 1 to 10 without the root, and lost+found unless the
// tree has it.
func (w *writer) reserved() error {
	resize, err := w.resizeInode()
	if err != nil {
		return err
	}
	for n := uint32(1); n < firstInode; n++ {
		d := &diskInode{}
		switch n {
		case format.RootInode:
			continue
		case format.ResizeInode:
			d = resize
		case format.JournalInode:
			d = w.journalInode()
		}
		if err := w.table.put(n, d); err != nil {
			return err
		}
	}
	if !w.ownLostFound() {
		return nil
	}
	return w.lostFound()
}

// lostFound writes the inode and the blocks of an empty lost+found.
func (w *writer) lostFound() error {
	d := &diskInode{
		mode: format.ModeDirectory | 0o700, links: 2, size: lostFoundBlocks * blockSize,
		atime: w.created, ctime: w.created, mtime: w.created, crtime: w.created,
	}
	seed := inodeSeed(w.seed, format.LostFoundInode)
	start := w.metaOut.pos
	b := make([]byte, blockSize)
	sealLeaf(b, func() int {
		at := putRecord(b, 0, ".", format.LostFoundInode, tree.Directory)
		putRecord(b, at, "..", format.RootInode, tree.Directory)
		return at
	}(), seed)
	if _, err := w.metaOut.put(b); err != nil {
		return err
	}
	if err := w.emptyLeaves(lostFoundBlocks-1, seed); err != nil {
		return err
	}
	w.fromMeta(start, lostFoundBlocks)
	if err := w.mapped(d, format.LostFoundInode); err != nil {
		return err
	}
	return w.table.put(format.LostFoundInode, d)
}

// resizeInode writes the blocks of the inode that reserves the blocks behind the
// descriptors, into which the descriptors can grow (verify_reserved_gdb in
// linux/fs/ext4/resize.c). Its double indirect block lists the reserved blocks of
// group 0. Each of these lists its copies in the groups with backups.
func (w *writer) resizeInode() (*diskInode, error) {
	const slots = blockSize / 4
	first := w.tableBlocks()
	top, b := make([]byte, blockSize), make([]byte, blockSize)
	blocks := int64(1)
	for i := first; i < descBlocks; i++ {
		clear(b)
		le.PutUint32(top[i%slots*4:], uint32(1+i))
		n := 0
		for g := 1; g < len(w.groups); g++ {
			if hasBackup(int64(g)) {
				le.PutUint32(b[4*n:], uint32(int64(g)*groupBlocks+1+i))
				n++
			}
		}
		blocks += int64(1 + n)
		if n > 0 {
			if _, err := w.disk.WriteAt(b, (1+i)*blockSize); err != nil {
				return nil, err
			}
		}
	}
	at, err := w.metaOut.put(top)
	if err != nil {
		return nil, err
	}
	const doubleIndirect = 13
	d := &diskInode{
		// As with mke2fs, the size is the largest that a double indirect block can map.
		mode: format.ModeRegular | 0o600, links: 1, size: (12 + slots + slots*slots) * blockSize, sectors: uint64(blocks) * blockSectors,
		atime: w.created, ctime: w.created, mtime: w.created, crtime: w.created,
	}
	le.PutUint32(d.block[4*doubleIndirect:], uint32(at))
	return d, nil
}
