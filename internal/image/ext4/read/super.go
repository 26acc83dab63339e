package read

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"strings"

	"github.com/banger-vm/banger/internal/image/ext4/format"
)

var le = binary.LittleEndian

// maxGroups bounds the memory for group descriptors. It allows 128 TiB.
const maxGroups = 1 << 20

// incompatKnown is the set of incompatible features that the reader
// understands.
const incompatKnown = format.IncompatFiletype | format.IncompatRecover | format.IncompatExtents | format.Incompat64Bit |
	format.IncompatFlexBG | format.IncompatEAInode | format.IncompatCsumSeed | format.IncompatLargeDir

// Superblock holds the decoded fields of struct ext4_super_block
// (linux/fs/ext4/ext4.h) that package read and package check need.
type Superblock struct {
	Raw            [format.SuperSize]byte // as stored
	Inodes         uint32
	Blocks         uint64
	FreeBlocks     uint64
	FreeInodes     uint32
	FirstBlock     uint32 // 1 if blocks have 1 KiB, else 0
	BlockSize      int    // bytes
	BlocksPerGroup uint32
	InodesPerGroup uint32
	FirstInode     uint32 // the first that is not reserved
	InodeSize      int    // bytes
	DescSize       int    // bytes of a group descriptor
	Compat         uint32
	Incompat       uint32
	ROCompat       uint32
	UUID           [16]byte
	HashSeed       [4]uint32
	HashUnsigned   bool      // the directory hash takes the bytes of names as unsigned
	ReservedGDT    uint32    // blocks reserved behind the descriptors
	Backups        [2]uint32 // the groups with backups if the feature sparse_super2 is on
	ChecksumSeed   uint32    // of all metadata checksums but the superblock's
}

func (s *Superblock) decode(raw []byte, size int64) error {
	copy(s.Raw[:], raw)
	if magic := le.Uint16(raw[0x38:]); magic != format.SuperMagic {
		return fmt.Errorf("magic number %#04x: not an ext4 file system", magic)
	}
	s.Compat, s.Incompat, s.ROCompat = le.Uint32(raw[0x5c:]), le.Uint32(raw[0x60:]), le.Uint32(raw[0x64:])
	if s.ROCompat&format.ROCompatMetadataCsum != 0 {
		if raw[0x175] != 1 {
			return fmt.Errorf("checksum type %d is not known", raw[0x175])
		}
		if want := format.Checksum(^uint32(0), raw[:0x3fc]); le.Uint32(raw[0x3fc:]) != want {
			return errors.New("checksum does not fit")
		}
	}
	if err := s.checkFeatures(); err != nil {
		return err
	}
	if err := s.decodeGeometry(raw); err != nil {
		return err
	}
	copy(s.UUID[:], raw[0x68:])
	for i := range s.HashSeed {
		s.HashSeed[i] = le.Uint32(raw[0xec+4*i:])
	}
	s.HashUnsigned = le.Uint32(raw[0x160:])&2 != 0
	s.ReservedGDT = uint32(le.Uint16(raw[0xce:]))
	s.Backups = [2]uint32{le.Uint32(raw[0x24c:]), le.Uint32(raw[0x250:])}
	s.ChecksumSeed = format.Checksum(^uint32(0), s.UUID[:])
	if s.Incompat&format.IncompatCsumSeed != 0 {
		s.ChecksumSeed = le.Uint32(raw[0x270:])
	}
	return s.checkGeometry(size)
}

func (s *Superblock) checkFeatures() error {
	if unknown := s.Incompat &^ incompatKnown; unknown != 0 {
		byBit := map[int]string{ // names of mke2fs(8)
			0: "compression", 3: "journal_dev", 4: "meta_bg", 8: "mmp", 12: "dirdata",
			15: "inline_data", 16: "encrypt", 17: "casefold",
		}
		var names []string
		for ; unknown != 0; unknown &= unknown - 1 {
			bit := bits.TrailingZeros32(unknown)
			name, ok := byBit[bit]
			if !ok {
				name = fmt.Sprintf("incompat bit %d", bit)
			}
			names = append(names, name)
		}
		return fmt.Errorf("features that cannot be read: %s", strings.Join(names, ", "))
	}
	switch {
	case s.Incompat&format.IncompatRecover != 0:
		return errors.New("journal needs recovery: the disk was not unmounted")
	case s.Incompat&format.IncompatExtents == 0, s.Incompat&format.IncompatFiletype == 0:
		return errors.New("features extents and filetype are off: not an ext4 file system")
	case s.ROCompat&format.ROCompatBigalloc != 0:
		return errors.New("features that cannot be read: bigalloc")
	}
	return nil
}

func (s *Superblock) decodeGeometry(raw []byte) error {
	s.Inodes, s.Blocks = le.Uint32(raw), uint64(le.Uint32(raw[4:]))
	s.FreeBlocks, s.FreeInodes = uint64(le.Uint32(raw[0xc:])), le.Uint32(raw[0x10:])
	s.FirstBlock = le.Uint32(raw[0x14:])
	logSize := le.Uint32(raw[0x18:])
	if logSize > 2 {
		return fmt.Errorf("block size 1024<<%d is not supported", logSize)
	}
	s.BlockSize = 1024 << logSize
	s.BlocksPerGroup, s.InodesPerGroup = le.Uint32(raw[0x20:]), le.Uint32(raw[0x28:])
	if rev := le.Uint32(raw[0x4c:]); rev != 1 {
		return fmt.Errorf("revision %d is not supported", rev)
	}
	s.FirstInode = le.Uint32(raw[0x54:])
	s.InodeSize = int(le.Uint16(raw[0x58:]))
	s.DescSize = 32
	if s.Incompat&format.Incompat64Bit != 0 {
		s.DescSize = int(le.Uint16(raw[0xfe:]))
		s.Blocks |= uint64(le.Uint32(raw[0x150:])) << 32
		s.FreeBlocks |= uint64(le.Uint32(raw[0x158:])) << 32
	}
	return nil
}

// checkGeometry returns an error if the numbers contradict each other or the
// size of the disk in bytes. Without an error, arithmetic on them cannot
// overflow.
func (s *Superblock) checkGeometry(size int64) error {
	bs := uint32(s.BlockSize)
	first := uint32(0)
	if bs == 1024 {
		first = 1
	}
	if s.Blocks > uint64(size)/uint64(bs) {
		return fmt.Errorf("%d blocks of %d bytes do not fit on a disk of %d bytes", s.Blocks, bs, size)
	}
	switch {
	case s.FirstBlock != first:
		return fmt.Errorf("first data block %d, want %d", s.FirstBlock, first)
	case s.Blocks <= uint64(first):
		return errors.New("no blocks")
	case s.InodeSize < 128 || s.InodeSize > s.BlockSize || s.InodeSize&(s.InodeSize-1) != 0:
		return fmt.Errorf("inode size %d", s.InodeSize)
	case s.DescSize < 32 || s.DescSize > s.BlockSize || s.DescSize&(s.DescSize-1) != 0,
		s.Incompat&format.Incompat64Bit != 0 && s.DescSize < 64:
		return fmt.Errorf("group descriptor size %d", s.DescSize)
	case s.BlocksPerGroup < 256 || s.BlocksPerGroup > 8*bs || s.BlocksPerGroup%8 != 0:
		return fmt.Errorf("%d blocks a group", s.BlocksPerGroup)
	case s.InodesPerGroup == 0 || s.InodesPerGroup > 8*bs || s.InodesPerGroup%8 != 0:
		return fmt.Errorf("%d inodes a group", s.InodesPerGroup)
	case s.FirstInode < format.LostFoundInode || s.FirstInode > s.InodesPerGroup:
		return fmt.Errorf("first inode %d", s.FirstInode)
	case s.GroupCount() > maxGroups:
		return fmt.Errorf("%d groups are too many", s.GroupCount())
	case uint64(s.Inodes) != s.GroupCount()*uint64(s.InodesPerGroup):
		return fmt.Errorf("%d inodes, want %d in each of %d groups", s.Inodes, s.InodesPerGroup, s.GroupCount())
	case s.ReservedGDT > bs/4:
		return fmt.Errorf("%d reserved descriptor blocks", s.ReservedGDT)
	}
	return nil
}

// GroupCount returns the number of block groups. The last may be incomplete.
func (s *Superblock) GroupCount() uint64 {
	per := uint64(s.BlocksPerGroup)
	return (s.Blocks - uint64(s.FirstBlock) + per - 1) / per
}

// MetadataCsum reports whether metadata has CRC-32C checksums.
func (s *Superblock) MetadataCsum() bool { return s.ROCompat&format.ROCompatMetadataCsum != 0 }

// GroupStart returns the first block of group g.
func (s *Superblock) GroupStart(g uint32) uint64 {
	return uint64(s.FirstBlock) + uint64(g)*uint64(s.BlocksPerGroup)
}

// GroupBlocks returns the number of blocks in group g.
func (s *Superblock) GroupBlocks(g uint32) uint32 {
	return uint32(min(uint64(s.BlocksPerGroup), s.Blocks-s.GroupStart(g)))
}

// DescBlocks returns the number of blocks of one copy of the group descriptors.
func (s *Superblock) DescBlocks() uint64 {
	per := uint64(s.BlockSize / s.DescSize)
	return (s.GroupCount() + per - 1) / per
}

// TableBlocks returns the number of blocks of a group's inode table.
func (s *Superblock) TableBlocks() uint64 {
	return (uint64(s.InodesPerGroup)*uint64(s.InodeSize) + uint64(s.BlockSize) - 1) / uint64(s.BlockSize)
}

// HasSuper reports whether group g begins with a superblock and descriptors
// (ext4_bg_has_super in linux/fs/ext4/balloc.c). With the feature sparse_super
// these are groups 0, 1 and the powers of 3, 5 and 7, otherwise all groups.
func (s *Superblock) HasSuper(g uint32) bool {
	switch {
	case g == 0:
		return true
	case s.Compat&format.CompatSparseSuper2 != 0:
		return g == s.Backups[0] || g == s.Backups[1]
	case s.ROCompat&format.ROCompatSparseSuper == 0 || g == 1:
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
