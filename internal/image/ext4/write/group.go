package write

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/banger-vm/banger/internal/image/ext4/format"
	"github.com/banger-vm/banger/internal/image/tree"
)

// groupState is what is in use in a block group.
type groupState struct {
	inodes int64  // all below this are in use
	dirs   int64  // of the inodes
	bitmap []byte // of blocks; nil while none is in use
	used   int64  // blocks
}

// setBits sets n bits of a bitmap. Bit i is bit i%8 of byte i/8.
func setBits(bitmap []byte, from, n int64) {
	for i := from; i < from+n; {
		if i%8 == 0 && from+n-i >= 8 {
			bitmap[i/8] = 0xff
			i += 8
			continue
		}
		bitmap[i/8] |= 1 << (i % 8)
		i++
	}
}

// take marks blocks as used.
func (w *writer) take(start, count int64) {
	for count > 0 {
		g := &w.groups[start/groupBlocks]
		if g.bitmap == nil {
			g.bitmap = make([]byte, blockSize)
		}
		from := start % groupBlocks
		n := min(count, groupBlocks-from)
		setBits(g.bitmap, from, n)
		g.used += n
		start, count = start+n, count-n
	}
}

// writeGroups writes the bitmaps, the descriptors, the journal and the
// superblocks.
func (w *writer) writeGroups() error {
	overhead := w.journal.end - w.journal.start
	for _, s := range fixed(w.blocks) {
		w.take(s.start, s.end-s.start)
		overhead += s.end - s.start
	}
	for i := range w.bodies {
		b := &w.bodies[i]
		w.data.each(int64(w.starts[b.inode]), int64(b.blocks), w.take)
	}
	w.meta.each(0, w.blocksOut.pos, w.take)
	w.take(w.journal.start, w.journal.end-w.journal.start)
	table, err := w.bitmaps()
	if err != nil {
		return err
	}
	if err := w.writeJournal(); err != nil {
		return err
	}
	return w.supers(table, overhead)
}

// bitmaps writes the bitmaps of groups that are in use and returns the
// descriptors of all.
func (w *writer) bitmaps() ([]byte, error) {
	var table bytes.Buffer
	for i := range w.groups {
		d, err := w.bitmap(int64(i))
		if err != nil {
			return nil, err
		}
		raw := encode(d)
		sum := format.Checksum(format.ChecksumUint32(w.seed, uint32(i)), raw)
		le.PutUint16(raw[0x1e:], uint16(sum))
		table.Write(raw)
	}
	return table.Bytes(), nil
}

func (w *writer) bitmap(i int64) (*diskGroup, error) {
	g := &w.groups[i]
	size := min(groupBlocks, w.blocks-i*groupBlocks)
	free, freeInodes := size-g.used, groupInodes-g.inodes
	d := &diskGroup{
		BlockBitmapLo: uint32(blockBitmap(i)), InodeBitmapLo: uint32(inodeBitmap(i)), InodeTableLo: uint32(inodeTable(i)),
		FreeBlocksLo: uint16(free), FreeInodesLo: uint16(freeInodes), UsedDirsLo: uint16(g.dirs),
		Flags: format.GroupInodeZeroed, ItableUnusedLo: uint16(freeInodes),
	}
	own := int64(0) // what the kernel finds by itself in a group without a bitmap
	if hasBackup(i) {
		own = backupBlocks
	}
	if last := i == int64(len(w.groups))-1; g.used == own && !last {
		d.Flags |= format.GroupBlockUninit
	} else {
		if g.bitmap == nil {
			g.bitmap = make([]byte, blockSize)
		}
		setBits(g.bitmap, size, groupBlocks-size)
		sum := format.Checksum(w.seed, g.bitmap)
		d.BlockBitmapCsumLo, d.BlockBitmapCsumHi = uint16(sum), uint16(sum>>16)
		if _, err := w.disk.WriteAt(g.bitmap, blockBitmap(i)*blockSize); err != nil {
			return nil, err
		}
	}
	g.bitmap = nil
	if g.inodes == 0 {
		d.Flags |= format.GroupInodeUninit
		return d, nil
	}
	b := make([]byte, blockSize)
	setBits(b, 0, g.inodes)
	setBits(b, groupInodes, groupBlocks-groupInodes)
	sum := format.Checksum(w.seed, b[:groupInodes/8])
	d.InodeBitmapCsumLo, d.InodeBitmapCsumHi = uint16(sum), uint16(sum>>16)
	_, err := w.disk.WriteAt(b, inodeBitmap(i)*blockSize)
	return d, err
}

// supers writes the superblock and the descriptors with their copies.
func (w *writer) supers(table []byte, overhead int64) error {
	s := w.super(overhead)
	used := int64(0)
	for i := range w.groups {
		used += w.groups[i].used
	}
	free := w.blocks - used
	s.FreeBlocksCountLo, s.FreeBlocksCountHi = uint32(free), uint32(free>>32)
	padded := slices.Grow(table, blockSize)[:blocksOf(int64(len(table)))*blockSize]
	clear(padded[len(table):])
	for i := range w.groups {
		if !hasBackup(int64(i)) {
			continue
		}
		start := int64(i) * groupBlocks * blockSize
		s.BlockGroupNr = uint16(i)
		raw := encode(s)
		le.PutUint32(raw[0x3fc:], format.Checksum(^uint32(0), raw[:0x3fc]))
		at := start
		if i == 0 {
			at = format.SuperOffset
		}
		if _, err := w.disk.WriteAt(raw, at); err != nil {
			return err
		}
		if _, err := w.disk.WriteAt(padded, start+blockSize); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) super(overhead int64) *diskSuper {
	groups := uint32(len(w.groups))
	sec := max(w.o.Created.Sec, 0)
	if sec >= 1<<40 {
		sec = 1<<40 - 1
	}
	now, nowHi := uint32(sec), uint8(sec>>32)
	reserved := w.blocks / 20
	s := &diskSuper{
		InodesCount: groups * groupInodes, FreeInodesCount: groups*groupInodes - w.lastInode(),
		BlocksCountLo: uint32(w.blocks), BlocksCountHi: uint32(w.blocks >> 32),
		RBlocksCountLo: uint32(reserved), RBlocksCountHi: uint32(reserved >> 32),
		LogBlockSize: 2, LogClusterSize: 2,
		BlocksPerGroup: groupBlocks, ClustersPerGroup: groupBlocks, InodesPerGroup: groupInodes,
		Wtime: now, WtimeHi: nowHi, LastCheck: now, LastCheckHi: nowHi, MkfsTime: now, MkfsTimeHi: nowHi,
		MaxMntCount: 0xffff, Magic: format.SuperMagic, State: 1, Errors: 1, RevLevel: 1,
		FirstIno: firstInode, InodeSize: inodeSize,
		FeatureCompat: featureCompat, FeatureIncompat: featureIncompat, FeatureROCompat: featureROCompat,
		UUID: w.o.UUID, HashSeed: w.o.HashSeed, DefHashVersion: format.HashHalfMD4, Flags: 1,
		ReservedGDTBlocks: uint16(descBlocks - w.tableBlocks()),
		JournalInum:       format.JournalInode, JnlBackupType: 1, DescSize: descSize, DefaultMountOpts: 0xc,
		MinExtraIsize: extraSize, WantExtraIsize: extraSize, LogGroupsPerFlex: 4, ChecksumType: 1,
		OverheadClusters: uint32(overhead),
	}
	if w.Layout.values > 0 {
		s.FeatureIncompat |= format.IncompatEAInode
	}
	copy(s.VolumeName[:], w.o.Label)
	j := w.journalInode()
	for i := range 15 {
		s.JnlBlocks[i] = le.Uint32(j.block[4*i:])
	}
	s.JnlBlocks[15], s.JnlBlocks[16] = uint32(j.size>>32), uint32(j.size)
	return s
}

// tableBlocks is how many blocks the descriptors take.
func (w *writer) tableBlocks() int64 {
	return int64(len(w.groups)+descPerBlock-1) / descPerBlock
}

func (w *writer) journalInode() *diskInode {
	n := w.journal.end - w.journal.start
	d := &diskInode{
		mode: 0x8000 | 0o600, links: 1, size: n * blockSize, sectors: uint64(n) * blockSectors, flags: format.FlagExtents,
		atime: w.created, ctime: w.created, mtime: w.created, crtime: w.created,
	}
	var list extentList
	list.add(0, w.journal.start, n)
	putLeaf(d.block[:], list, extentsInInode)
	return d
}

// writeJournal writes the superblock of an empty journal, struct
// journal_superblock_s of linux/jbd2.h, which is big-endian.
func (w *writer) writeJournal() error {
	b := make([]byte, format.SuperSize)
	for at, v := range map[int]uint32{
		0x00: 0xc03b3998, // h_magic
		0x04: 4,          // h_blocktype: a superblock, version 2
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

// reserved writes the inodes 1 to 10 and, unless the tree has it, 11.
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

func (w *writer) lostFound() error {
	d := &diskInode{
		mode: 0x4000 | 0o700, links: 2, size: lostFoundBlocks * blockSize,
		atime: w.created, ctime: w.created, mtime: w.created, crtime: w.created,
	}
	seed := inodeSeed(w.seed, format.LostFoundInode)
	start := w.blocksOut.pos
	b := make([]byte, blockSize)
	sealLeaf(b, func() int {
		at := putRecord(b, 0, ".", format.LostFoundInode, tree.Directory)
		putRecord(b, at, "..", format.RootInode, tree.Directory)
		return at
	}(), seed)
	if _, err := w.blocksOut.put(b); err != nil {
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

// format.ResizeInode writes the blocks that keep the room behind the descriptors: a
// double indirect block lists the reserved blocks of group 0, each of which
// lists its copies in the groups with backups.
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
	at, err := w.blocksOut.put(top)
	if err != nil {
		return nil, err
	}
	const doubleIndirect = 13
	d := &diskInode{
		// What a double indirect block reaches; mke2fs sets it so.
		mode: 0x8000 | 0o600, links: 1, size: (12 + slots + slots*slots) * blockSize, sectors: uint64(blocks) * blockSectors,
		atime: w.created, ctime: w.created, mtime: w.created, crtime: w.created,
	}
	le.PutUint32(d.block[4*doubleIndirect:], uint32(at))
	return d, nil
}
