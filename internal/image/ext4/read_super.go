package ext4

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"strings"
)

// Field positions are those of struct ext4_super_block, ext4_group_desc and
// ext4_inode in linux/fs/ext4/ext4.h. The reader has them as plain offsets,
// apart from the structs that the writer fills in, so that a field in the
// wrong place is not wrong on both sides.

var le = binary.LittleEndian //nolint:gochecknoglobals // a name for a constant

const (
	superOffset = 1024
	superSize   = 1024
	superMagic  = 0xef53

	maxGroups = 1 << 20 // 128 TiB; bounds memory
)

// Features that the reader acts on.
const (
	compatJournal      = 0x4
	compatResizeInode  = 0x10
	compatSparseSuper2 = 0x200

	incompatFiletype = 0x2
	incompatRecover  = 0x4
	incompatExtents  = 0x40
	incompat64bit    = 0x80
	incompatFlexBG   = 0x200
	incompatEAInode  = 0x400
	incompatCsumSeed = 0x2000
	incompatLargeDir = 0x4000

	incompatKnown = incompatFiletype | incompatRecover | incompatExtents | incompat64bit |
		incompatFlexBG | incompatEAInode | incompatCsumSeed | incompatLargeDir

	roSparseSuper  = 0x1
	roGDTCsum      = 0x10
	roBigalloc     = 0x200
	roMetadataCsum = 0x400
)

// incompatNames are the names that mke2fs(8) gives to the features by bit,
// for those that are refused.
var incompatNames = map[int]string{ //nolint:gochecknoglobals // a table of constants
	0: "compression", 3: "journal_dev", 4: "meta_bg", 8: "mmp", 12: "dirdata",
	15: "inline_data", 16: "encrypt", 17: "casefold",
}

// super is what the reader needs of the superblock.
type super struct {
	raw            [superSize]byte
	inodes         uint32
	blocks         uint64
	freeBlocks     uint64
	freeInodes     uint32
	firstBlock     uint32 // 1 where blocks have 1 KiB, else 0
	blockSize      int
	blocksPerGroup uint32
	inodesPerGroup uint32
	firstInode     uint32 // that is not reserved
	inodeSize      int
	descSize       int
	compat         uint32
	incompat       uint32
	roCompat       uint32
	uuid           [16]byte
	label          string
	hashSeed       [4]uint32
	hashUnsigned   bool
	reservedGDT    uint32
	backups        [2]uint32 // groups with backups, under sparse_super2
	checksumSeed   uint32
}

func (s *super) decode(raw []byte, size int64) error {
	copy(s.raw[:], raw)
	if magic := le.Uint16(raw[0x38:]); magic != superMagic {
		return fmt.Errorf("magic number %#04x: not an ext4 file system", magic)
	}
	s.compat, s.incompat, s.roCompat = le.Uint32(raw[0x5c:]), le.Uint32(raw[0x60:]), le.Uint32(raw[0x64:])
	if s.roCompat&roMetadataCsum != 0 {
		if raw[0x175] != 1 {
			return fmt.Errorf("checksum type %d is not known", raw[0x175])
		}
		if want := crc(^uint32(0), raw[:0x3fc]); le.Uint32(raw[0x3fc:]) != want {
			return errors.New("checksum does not fit")
		}
	}
	if err := s.checkFeatures(); err != nil {
		return err
	}
	if err := s.decodeGeometry(raw); err != nil {
		return err
	}
	copy(s.uuid[:], raw[0x68:])
	label, _, _ := bytes.Cut(raw[0x78:0x88], []byte{0})
	s.label = string(label)
	for i := range s.hashSeed {
		s.hashSeed[i] = le.Uint32(raw[0xec+4*i:])
	}
	s.hashUnsigned = le.Uint32(raw[0x160:])&2 != 0
	s.reservedGDT = uint32(le.Uint16(raw[0xce:]))
	s.backups = [2]uint32{le.Uint32(raw[0x24c:]), le.Uint32(raw[0x250:])}
	s.checksumSeed = crc(^uint32(0), s.uuid[:])
	if s.incompat&incompatCsumSeed != 0 {
		s.checksumSeed = le.Uint32(raw[0x270:])
	}
	return s.checkGeometry(size)
}

func (s *super) checkFeatures() error {
	if unknown := s.incompat &^ incompatKnown; unknown != 0 {
		var names []string
		for ; unknown != 0; unknown &= unknown - 1 {
			bit := bits.TrailingZeros32(unknown)
			name, ok := incompatNames[bit]
			if !ok {
				name = fmt.Sprintf("incompat bit %d", bit)
			}
			names = append(names, name)
		}
		return fmt.Errorf("features that cannot be read: %s", strings.Join(names, ", "))
	}
	switch {
	case s.incompat&incompatRecover != 0:
		return errors.New("journal needs recovery: the disk was not unmounted")
	case s.incompat&incompatExtents == 0, s.incompat&incompatFiletype == 0:
		return errors.New("features extents and filetype are off: not an ext4 file system")
	case s.roCompat&roBigalloc != 0:
		return errors.New("features that cannot be read: bigalloc")
	}
	return nil
}

func (s *super) decodeGeometry(raw []byte) error {
	s.inodes, s.blocks = le.Uint32(raw), uint64(le.Uint32(raw[4:]))
	s.freeBlocks, s.freeInodes = uint64(le.Uint32(raw[0xc:])), le.Uint32(raw[0x10:])
	s.firstBlock = le.Uint32(raw[0x14:])
	logSize := le.Uint32(raw[0x18:])
	if logSize > 2 {
		return fmt.Errorf("block size 1024<<%d is not supported", logSize)
	}
	s.blockSize = 1024 << logSize
	s.blocksPerGroup, s.inodesPerGroup = le.Uint32(raw[0x20:]), le.Uint32(raw[0x28:])
	if rev := le.Uint32(raw[0x4c:]); rev != 1 {
		return fmt.Errorf("revision %d is not supported", rev)
	}
	s.firstInode = le.Uint32(raw[0x54:])
	s.inodeSize = int(le.Uint16(raw[0x58:]))
	s.descSize = 32
	if s.incompat&incompat64bit != 0 {
		s.descSize = int(le.Uint16(raw[0xfe:]))
		s.blocks |= uint64(le.Uint32(raw[0x150:])) << 32
		s.freeBlocks |= uint64(le.Uint32(raw[0x158:])) << 32
	}
	return nil
}

// checkGeometry makes sure that arithmetic on the numbers cannot overflow and
// that they agree with each other and with the disk.
func (s *super) checkGeometry(size int64) error {
	bs := uint32(s.blockSize)
	first := uint32(0)
	if bs == 1024 {
		first = 1
	}
	if s.blocks > uint64(size)/uint64(bs) {
		return fmt.Errorf("%d blocks of %d bytes do not fit on a disk of %d bytes", s.blocks, bs, size)
	}
	switch {
	case s.firstBlock != first:
		return fmt.Errorf("first data block %d, want %d", s.firstBlock, first)
	case s.blocks <= uint64(first):
		return errors.New("no blocks")
	case s.inodeSize < 128 || s.inodeSize > s.blockSize || s.inodeSize&(s.inodeSize-1) != 0:
		return fmt.Errorf("inode size %d", s.inodeSize)
	case s.descSize < 32 || s.descSize > s.blockSize || s.descSize&(s.descSize-1) != 0,
		s.incompat&incompat64bit != 0 && s.descSize < 64:
		return fmt.Errorf("group descriptor size %d", s.descSize)
	case s.blocksPerGroup < 256 || s.blocksPerGroup > 8*bs || s.blocksPerGroup%8 != 0:
		return fmt.Errorf("%d blocks a group", s.blocksPerGroup)
	case s.inodesPerGroup == 0 || s.inodesPerGroup > 8*bs || s.inodesPerGroup%8 != 0:
		return fmt.Errorf("%d inodes a group", s.inodesPerGroup)
	case s.firstInode < LostFoundInode || s.firstInode > s.inodesPerGroup:
		return fmt.Errorf("first inode %d", s.firstInode)
	case s.groupCount() > maxGroups:
		return fmt.Errorf("%d groups are too many", s.groupCount())
	case uint64(s.inodes) != s.groupCount()*uint64(s.inodesPerGroup):
		return fmt.Errorf("%d inodes, want %d in each of %d groups", s.inodes, s.inodesPerGroup, s.groupCount())
	case s.reservedGDT > bs/4:
		return fmt.Errorf("%d reserved descriptor blocks", s.reservedGDT)
	}
	return nil
}

func (s *super) groupCount() uint64 {
	per := uint64(s.blocksPerGroup)
	return (s.blocks - uint64(s.firstBlock) + per - 1) / per
}

func (s *super) metadataCsum() bool { return s.roCompat&roMetadataCsum != 0 }

// groupStart is the first block of group g.
func (s *super) groupStart(g uint32) uint64 {
	return uint64(s.firstBlock) + uint64(g)*uint64(s.blocksPerGroup)
}

// groupBlocks is how many blocks group g has; the last may have fewer.
func (s *super) groupBlocks(g uint32) uint32 {
	return uint32(min(uint64(s.blocksPerGroup), s.blocks-s.groupStart(g)))
}

// descBlocks is how many blocks the descriptors take, once.
func (s *super) descBlocks() uint64 {
	per := uint64(s.blockSize / s.descSize)
	return (s.groupCount() + per - 1) / per
}

// tableBlocks is how many blocks the inode table of a group takes.
func (s *super) tableBlocks() uint64 {
	return (uint64(s.inodesPerGroup)*uint64(s.inodeSize) + uint64(s.blockSize) - 1) / uint64(s.blockSize)
}

// hasSuper reports whether group g begins with a superblock and descriptors:
// every one, or with sparse_super 0, 1 and the powers of 3, 5 and 7.
func (s *super) hasSuper(g uint32) bool {
	switch {
	case g == 0:
		return true
	case s.compat&compatSparseSuper2 != 0:
		return g == s.backups[0] || g == s.backups[1]
	case s.roCompat&roSparseSuper == 0 || g == 1:
		return true
	}
	for _, base := range []uint64{3, 5, 7} {
		n := base
		for n < uint64(g) {
			n *= base
		}
		if n == uint64(g) {
			return true
		}
	}
	return false
}
