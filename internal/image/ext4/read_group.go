package ext4

import (
	"errors"
	"fmt"
)

// Flags of a group, bg_flags.
const (
	groupInodeUninit = 0x1
	groupBlockUninit = 0x2
	groupInodeZeroed = 0x4
)

// group is a decoded group descriptor.
type group struct {
	blockBitmap  uint64
	inodeBitmap  uint64
	inodeTable   uint64
	freeBlocks   uint32
	freeInodes   uint32
	directories  uint32
	unusedInodes uint32 // at the end of the table, never used
	flags        uint16
	bitmapCsums  [2]uint32 // of the block bitmap, of the inode bitmap
	err          error     // why the descriptor cannot be trusted
}

func (fs *FS) readGroups() error {
	sb := &fs.sb
	start := uint64(sb.firstBlock) + 1
	if start+sb.descBlocks() > sb.blocks {
		return errors.New("group descriptors reach beyond the disk")
	}
	raw := make([]byte, sb.descBlocks()*uint64(sb.blockSize))
	if _, err := fs.r.ReadAt(raw, int64(start)*int64(sb.blockSize)); err != nil {
		return fmt.Errorf("read group descriptors: %w", err)
	}
	fs.groups = make([]group, sb.groupCount())
	for i := range fs.groups {
		g := &fs.groups[i]
		d := raw[i*sb.descSize:][:sb.descSize]
		g.decode(d)
		g.err = fs.checkGroup(uint32(i), g, d)
	}
	return nil
}

func (g *group) decode(d []byte) {
	g.blockBitmap, g.inodeBitmap, g.inodeTable = uint64(le.Uint32(d)), uint64(le.Uint32(d[4:])), uint64(le.Uint32(d[8:]))
	g.freeBlocks, g.freeInodes = uint32(le.Uint16(d[0xc:])), uint32(le.Uint16(d[0xe:]))
	g.directories, g.flags = uint32(le.Uint16(d[0x10:])), le.Uint16(d[0x12:])
	g.bitmapCsums = [2]uint32{uint32(le.Uint16(d[0x18:])), uint32(le.Uint16(d[0x1a:]))}
	g.unusedInodes = uint32(le.Uint16(d[0x1c:]))
	if len(d) < 64 {
		return
	}
	g.blockBitmap |= uint64(le.Uint32(d[0x20:])) << 32
	g.inodeBitmap |= uint64(le.Uint32(d[0x24:])) << 32
	g.inodeTable |= uint64(le.Uint32(d[0x28:])) << 32
	g.freeBlocks |= uint32(le.Uint16(d[0x2c:])) << 16
	g.freeInodes |= uint32(le.Uint16(d[0x2e:])) << 16
	g.directories |= uint32(le.Uint16(d[0x30:])) << 16
	g.unusedInodes |= uint32(le.Uint16(d[0x32:])) << 16
	g.bitmapCsums[0] |= uint32(le.Uint16(d[0x38:])) << 16
	g.bitmapCsums[1] |= uint32(le.Uint16(d[0x3a:])) << 16
}

func (fs *FS) checkGroup(n uint32, g *group, raw []byte) error {
	if want, ok := fs.groupChecksum(n, raw); ok && want != le.Uint16(raw[0x1e:]) {
		return fmt.Errorf("group %d: descriptor checksum does not fit", n)
	}
	sb := &fs.sb
	for _, b := range []struct {
		what  string
		block uint64
		count uint64
	}{
		{"block bitmap", g.blockBitmap, 1},
		{"inode bitmap", g.inodeBitmap, 1},
		{"inode table", g.inodeTable, sb.tableBlocks()},
	} {
		if b.block <= uint64(sb.firstBlock) || b.block >= sb.blocks || b.count > sb.blocks-b.block {
			return fmt.Errorf("group %d: %s at block %d is not on the disk", n, b.what, b.block)
		}
	}
	if g.unusedInodes > sb.inodesPerGroup {
		return fmt.Errorf("group %d: %d unused inodes of %d", n, g.unusedInodes, sb.inodesPerGroup)
	}
	return nil
}

// groupChecksum computes bg_checksum; false without checksums.
func (fs *FS) groupChecksum(n uint32, raw []byte) (uint16, bool) {
	switch {
	case fs.sb.metadataCsum():
		return uint16(crcWithout(crcUint32(fs.seed, n), raw, 0x1e, 0x20)), true
	case fs.sb.roCompat&roGDTCsum != 0:
		sum := crc16(^uint16(0), fs.sb.uuid[:])
		sum = crc16(sum, le.AppendUint32(nil, n))
		sum = crc16(sum, raw[:0x1e])
		return crc16(sum, raw[0x20:]), true
	}
	return 0, false
}

// crc16 is that of linux/lib/crc16.c: polynomial 0x8005, reflected.
func crc16(sum uint16, data []byte) uint16 {
	for _, b := range data {
		sum ^= uint16(b)
		for range 8 {
			sum = sum>>1 ^ -(sum&1)&0xa001
		}
	}
	return sum
}
