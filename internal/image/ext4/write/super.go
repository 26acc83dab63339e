package write

import (
	"slices"

	"github.com/banger-vm/banger/internal/image/ext4/format"
)

// supers writes the superblock and the descriptors, and all copies of them. overhead
// is the number of blocks that no file can use.
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

// super returns the superblock, without the count of free blocks.
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
	if w.valueInodes > 0 {
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

// tableBlocks returns the number of blocks of one copy of the descriptors.
func (w *writer) tableBlocks() int64 {
	return int64(len(w.groups)+descPerBlock-1) / descPerBlock
}
