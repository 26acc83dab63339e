package read

import (
	"errors"
	"fmt"

	"github.com/banger-vm/banger/internal/image/ext4/format"
)

// Group is a decoded group descriptor, struct ext4_group_desc of
// linux/fs/ext4/ext4.h. The bitmaps and the inode table are block numbers.
type Group struct {
	BlockBitmap     uint64
	InodeBitmap     uint64
	InodeTable      uint64
	FreeBlocks      uint32
	FreeInodes      uint32
	Directories     uint32
	UnusedInodes    uint32 // at the end of the table, never initialized
	Flags           uint16
	BitmapChecksums [2]uint32 // of the block bitmap, of the inode bitmap
	Err             error     // set if the descriptor is damaged
}

func (fs *FS) readGroups() error {
	sb := &fs.sb
	start := uint64(sb.FirstBlock) + 1
	if start+sb.DescBlocks() > sb.Blocks {
		return errors.New("group descriptors reach beyond the disk")
	}
	raw := make([]byte, sb.DescBlocks()*uint64(sb.BlockSize))
	if _, err := fs.r.ReadAt(raw, int64(start)*int64(sb.BlockSize)); err != nil {
		return fmt.Errorf("read group descriptors: %w", err)
	}
	fs.groups = make([]Group, sb.GroupCount())
	for i := range fs.groups {
		g := &fs.groups[i]
		d := raw[i*sb.DescSize:][:sb.DescSize]
		*g = DecodeGroup(d)
		g.Err = fs.checkGroup(uint32(i), g, d)
	}
	return nil
}

// DecodeGroup decodes a group descriptor of 32 bytes, or of 64 bytes and more.
// It checks nothing.
func DecodeGroup(d []byte) (g Group) {
	g.BlockBitmap, g.InodeBitmap, g.InodeTable = uint64(le.Uint32(d)), uint64(le.Uint32(d[4:])), uint64(le.Uint32(d[8:]))
	g.FreeBlocks, g.FreeInodes = uint32(le.Uint16(d[0xc:])), uint32(le.Uint16(d[0xe:]))
	g.Directories, g.Flags = uint32(le.Uint16(d[0x10:])), le.Uint16(d[0x12:])
	g.BitmapChecksums = [2]uint32{uint32(le.Uint16(d[0x18:])), uint32(le.Uint16(d[0x1a:]))}
	g.UnusedInodes = uint32(le.Uint16(d[0x1c:]))
	if len(d) < 64 {
		return g
	}
	g.BlockBitmap |= uint64(le.Uint32(d[0x20:])) << 32
	g.InodeBitmap |= uint64(le.Uint32(d[0x24:])) << 32
	g.InodeTable |= uint64(le.Uint32(d[0x28:])) << 32
	g.FreeBlocks |= uint32(le.Uint16(d[0x2c:])) << 16
	g.FreeInodes |= uint32(le.Uint16(d[0x2e:])) << 16
	g.Directories |= uint32(le.Uint16(d[0x30:])) << 16
	g.UnusedInodes |= uint32(le.Uint16(d[0x32:])) << 16
	g.BitmapChecksums[0] |= uint32(le.Uint16(d[0x38:])) << 16
	g.BitmapChecksums[1] |= uint32(le.Uint16(d[0x3a:])) << 16
	return g
}

func (fs *FS) checkGroup(n uint32, g *Group, raw []byte) error {
	if want, ok := fs.GroupChecksum(n, raw); ok && want != le.Uint16(raw[0x1e:]) {
		return fmt.Errorf("group %d: descriptor checksum does not fit", n)
	}
	sb := &fs.sb
	for _, b := range []struct {
		name  string
		block uint64
		count uint64
	}{
		{"block bitmap", g.BlockBitmap, 1},
		{"inode bitmap", g.InodeBitmap, 1},
		{"inode table", g.InodeTable, sb.TableBlocks()},
	} {
		if b.block <= uint64(sb.FirstBlock) || b.block >= sb.Blocks || b.count > sb.Blocks-b.block {
			return fmt.Errorf("group %d: %s at block %d is not on the disk", n, b.name, b.block)
		}
	}
	if g.UnusedInodes > sb.InodesPerGroup {
		return fmt.Errorf("group %d: %d unused inodes of %d", n, g.UnusedInodes, sb.InodesPerGroup)
	}
	return nil
}

// GroupChecksum returns the bg_checksum that descriptor n with the bytes raw
// should have. It reports false if the file system has no such checksums.
func (fs *FS) GroupChecksum(n uint32, raw []byte) (uint16, bool) {
	switch {
	case fs.sb.MetadataCsum():
		return uint16(format.ChecksumWithout(format.ChecksumUint32(fs.seed, n), raw, 0x1e, 0x20)), true
	case fs.sb.ROCompat&format.ROCompatGDTCsum != 0:
		sum := crc16(^uint16(0), fs.sb.UUID[:])
		sum = crc16(sum, le.AppendUint32(nil, n))
		sum = crc16(sum, raw[:0x1e])
		return crc16(sum, raw[0x20:]), true
	}
	return 0, false
}

// crc16 continues a CRC-16 with the reflected polynomial 0x8005, as
// linux/lib/crc16.c does.
func crc16(sum uint16, data []byte) uint16 {
	for _, b := range data {
		sum ^= uint16(b)
		for range 8 {
			sum = sum>>1 ^ -(sum&1)&0xa001
		}
	}
	return sum
}
