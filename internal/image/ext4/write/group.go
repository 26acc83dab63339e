package write

import (
	"bytes"

	"github.com/banger-vm/banger/internal/image/ext4/format"
)

// groupState holds the use of a block group.
type groupState struct {
	inodes int64  // number of inodes in use, which are the first of the group
	dirs   int64  // number of directories
	bitmap []byte // of the blocks in use; nil for none
	used   int64  // number of blocks in use
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

// markUsed marks blocks as used.
func (w *writer) markUsed(start, count int64) {
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
	for _, s := range fixedSpans(w.blocks) {
		w.markUsed(s.start, s.end-s.start)
		overhead += s.end - s.start
	}
	for i := range w.bodies {
		b := &w.bodies[i]
		w.data.each(int64(w.starts[b.inode]), int64(b.blocks), w.markUsed)
	}
	w.meta.each(0, w.metaOut.pos, w.markUsed)
	w.markUsed(w.journal.start, w.journal.end-w.journal.start)
	table, err := w.bitmaps()
	if err != nil {
		return err
	}
	if err := w.writeJournal(); err != nil {
		return err
	}
	return w.supers(table, overhead)
}

// bitmaps writes the bitmaps of all groups in use. It returns the descriptors of
// all groups.
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

// bitmap writes the bitmaps of group i and returns its descriptor.
func (w *writer) bitmap(i int64) (*diskGroup, error) {
	g := &w.groups[i]
	size := min(groupBlocks, w.blocks-i*groupBlocks)
	free, freeInodes := size-g.used, groupInodes-g.inodes
	d := &diskGroup{
		BlockBitmapLo: uint32(blockBitmap(i)), InodeBitmapLo: uint32(inodeBitmap(i)), InodeTableLo: uint32(inodeTable(i)),
		FreeBlocksLo: uint16(free), FreeInodesLo: uint16(freeInodes), UsedDirsLo: uint16(g.dirs),
		Flags: format.GroupInodeZeroed, ItableUnusedLo: uint16(freeInodes),
	}
	// The kernel knows the superblock and descriptors of a group without a bitmap, so
	// a group with no other block in use needs none.
	own := int64(0)
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
