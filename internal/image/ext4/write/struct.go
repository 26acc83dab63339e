package write

import (
	"encoding/binary"

	"github.com/banger-vm/banger/internal/image/ext4/format"
)

var le = binary.LittleEndian

// The geometry that all disks of this package share. It is the geometry of mke2fs,
// except for descBlocks, which mke2fs computes from the size of the disk. A
// constant makes the places of metadata independent of that size.
const (
	blockSize     = 4096
	inodeSize     = 256
	descSize      = 64
	groupBlocks   = 8 * blockSize // one bit of a bitmap block for each
	groupInodes   = 8192
	tableBlocks   = groupInodes * inodeSize / blockSize
	flexGroups    = 16                                    // groups in a flex group, whose bitmaps and tables lie together
	descBlocks    = 256                                   // descriptors and s_reserved_gdt_blocks
	backupBlocks  = 1 + descBlocks                        // superblock and descriptors
	flexBlocks    = 2*flexGroups + flexGroups*tableBlocks // bitmaps and tables of a flex group
	descPerBlock  = blockSize / descSize
	maxGroups     = descBlocks * descPerBlock
	extraSize     = 32  // i_extra_isize: the fields up to i_projid
	maxName       = 255 // EXT4_NAME_LEN
	fastSymlink   = 59  // bytes of a target in i_block, without its final NUL
	firstInode    = 11  // s_first_ino: 1 to 10 are reserved
	blockSectors  = blockSize / 512
	maxFileBlocks = 1<<32 - 1 // ee_block has 32 bits; its highest value, EXT_MAX_BLOCKS, is no block

	extentsInInode = 4
	extentsInBlock = (blockSize - format.ExtentSize) / format.ExtentSize // the rest holds a checksum of 4 bytes

	dxRootLimit = (blockSize - format.DXRootHead - format.DXTail) / format.DXEntry
	dxNodeLimit = (blockSize - format.DXNodeHead - format.DXTail) / format.DXEntry
	direntArea  = blockSize - format.DirTail
)

// Features that mke2fs 1.47 sets by default.
const (
	featureCompat   = 0x3c  // has_journal, ext_attr, resize_inode, dir_index
	featureIncompat = 0x2c2 // filetype, extent, 64bit, flex_bg
	featureROCompat = 0x46b // sparse_super, large_file, huge_file, dir_nlink, extra_isize, metadata_csum
)

// diskSuper is struct ext4_super_block of linux/fs/ext4/ext4.h. Fields that are
// zero on every new disk are left blank.
type diskSuper struct {
	InodesCount       uint32
	BlocksCountLo     uint32
	RBlocksCountLo    uint32 // reserved for root
	FreeBlocksCountLo uint32
	FreeInodesCount   uint32
	FirstDataBlock    uint32
	LogBlockSize      uint32 // block size is 1024 << this
	LogClusterSize    uint32
	BlocksPerGroup    uint32
	ClustersPerGroup  uint32
	InodesPerGroup    uint32
	Mtime             uint32 // last mount
	Wtime             uint32 // last write
	MntCount          uint16
	MaxMntCount       uint16 // 65535: no check is due by mounts
	Magic             uint16
	State             uint16 // 1: clean
	Errors            uint16 // 1: continue
	MinorRevLevel     uint16
	LastCheck         uint32
	CheckInterval     uint32
	CreatorOS         uint32
	RevLevel          uint32 // 1: inode sizes and features
	DefResUID         uint16
	DefResGID         uint16
	FirstIno          uint32
	InodeSize         uint16
	BlockGroupNr      uint16 // the group that holds this copy
	FeatureCompat     uint32
	FeatureIncompat   uint32
	FeatureROCompat   uint32
	UUID              [16]byte
	VolumeName        [16]byte
	LastMounted       [64]byte
	AlgorithmUsage    uint32
	PreallocBlocks    uint8
	PreallocDirBlocks uint8
	ReservedGDTBlocks uint16
	JournalUUID       [16]byte
	JournalInum       uint32
	JournalDev        uint32
	LastOrphan        uint32
	HashSeed          [16]byte
	DefHashVersion    uint8
	JnlBackupType     uint8 // 1: JnlBlocks is a copy of the journal's i_block and i_size
	DescSize          uint16
	DefaultMountOpts  uint32 // 0xc: user_xattr and acl
	FirstMetaBG       uint32
	MkfsTime          uint32
	JnlBlocks         [17]uint32
	BlocksCountHi     uint32
	RBlocksCountHi    uint32
	FreeBlocksCountHi uint32
	MinExtraIsize     uint16
	WantExtraIsize    uint16
	Flags             uint32 // 1: names are hashed as signed characters
	RaidStride        uint16
	MMPInterval       uint16
	MMPBlock          uint64
	RaidStripeWidth   uint32
	LogGroupsPerFlex  uint8
	ChecksumType      uint8 // 1: crc32c
	_                 uint16
	KBytesWritten     uint64
	_                 [0x248 - 0x180]byte // snapshots, errors, mount options, quotas
	OverheadClusters  uint32
	_                 [0x274 - 0x24c]byte // backups, encryption
	WtimeHi           uint8
	MtimeHi           uint8
	MkfsTimeHi        uint8
	LastCheckHi       uint8
	_                 [0x3fc - 0x278]byte
	Checksum          uint32 // of all fields before
}

// diskGroup is struct ext4_group_desc of linux/fs/ext4/ext4.h with 64 bytes.
type diskGroup struct {
	BlockBitmapLo     uint32
	InodeBitmapLo     uint32
	InodeTableLo      uint32
	FreeBlocksLo      uint16
	FreeInodesLo      uint16
	UsedDirsLo        uint16
	Flags             uint16 // for example format.GroupInodeUninit
	ExcludeBitmapLo   uint32
	BlockBitmapCsumLo uint16
	InodeBitmapCsumLo uint16
	ItableUnusedLo    uint16
	Checksum          uint16
	BlockBitmapHi     uint32
	InodeBitmapHi     uint32
	InodeTableHi      uint32
	FreeBlocksHi      uint16
	FreeInodesHi      uint16
	UsedDirsHi        uint16
	ItableUnusedHi    uint16
	ExcludeBitmapHi   uint32
	BlockBitmapCsumHi uint16
	InodeBitmapCsumHi uint16
	_                 uint32
}

// encode returns the bytes of a superblock or descriptor.
func encode(v any) []byte {
	raw, err := binary.Append(nil, le, v)
	if err != nil {
		panic(err) // v is of a type without a fixed size
	}
	return raw
}

// diskTime is a time in the fields of an inode. sec holds the lower 32 bits of the
// seconds. extra holds two more bits of them, and above these the nanoseconds.
type diskTime struct{ sec, extra uint32 }

// diskInode is struct ext4_inode of linux/fs/ext4/ext4.h with 256 bytes and an
// i_extra_isize of 32. Fields that are zero on a new disk are missing: i_dtime,
// i_generation and i_projid.
type diskInode struct {
	mode     uint16
	uid, gid uint32
	size     int64
	links    uint16
	sectors  uint64 // i_blocks, in units of 512 bytes
	flags    uint32
	version  uint32 // i_disk_version; in an inode that holds the value of an attribute, its reference count
	block    [60]byte
	acl      uint64 // block of extended attributes
	atime    diskTime
	ctime    diskTime
	mtime    diskTime
	crtime   diskTime
	xattrs   []byte // attributes behind the fixed fields, at most inodeSize-format.OldInodeSize-extraSize
}

// put writes the inode with its checksum to raw, which must be all zero.
func (in *diskInode) put(raw []byte, seed uint32) {
	le.PutUint16(raw[0x00:], in.mode)
	le.PutUint16(raw[0x02:], uint16(in.uid))
	le.PutUint32(raw[0x04:], uint32(in.size))
	le.PutUint32(raw[0x08:], in.atime.sec)
	le.PutUint32(raw[0x0c:], in.ctime.sec)
	le.PutUint32(raw[0x10:], in.mtime.sec)
	le.PutUint16(raw[0x18:], uint16(in.gid))
	le.PutUint16(raw[0x1a:], in.links)
	le.PutUint32(raw[0x1c:], uint32(in.sectors))
	le.PutUint32(raw[0x20:], in.flags)
	le.PutUint32(raw[0x24:], in.version)
	copy(raw[0x28:], in.block[:])
	le.PutUint32(raw[0x68:], uint32(in.acl))
	le.PutUint32(raw[0x6c:], uint32(in.size>>32))
	le.PutUint16(raw[0x74:], uint16(in.sectors>>32))
	le.PutUint16(raw[0x76:], uint16(in.acl>>32))
	le.PutUint16(raw[0x78:], uint16(in.uid>>16))
	le.PutUint16(raw[0x7a:], uint16(in.gid>>16))
	le.PutUint16(raw[0x80:], extraSize)
	le.PutUint32(raw[0x84:], in.ctime.extra)
	le.PutUint32(raw[0x88:], in.mtime.extra)
	le.PutUint32(raw[0x8c:], in.atime.extra)
	le.PutUint32(raw[0x90:], in.crtime.sec)
	le.PutUint32(raw[0x94:], in.crtime.extra)
	copy(raw[format.OldInodeSize+extraSize:inodeSize], in.xattrs)
	sum := format.Checksum(seed, raw[:inodeSize])
	le.PutUint16(raw[0x7c:], uint16(sum))
	le.PutUint16(raw[0x82:], uint16(sum>>16))
}

// inodeSeed returns the seed of the checksums of an inode with generation 0 and of
// its metadata blocks.
func inodeSeed(seed, number uint32) uint32 {
	var raw [8]byte
	le.PutUint32(raw[:], number)
	return format.Checksum(seed, raw[:])
}
