// Package format holds the facts of the ext4 file system that both the reader
// and the writer of disks need: magic numbers, feature and flag bits, record
// sizes, inode numbers and the checksum. Their sources are the kernel's headers
// and Documentation/filesystems/ext4.
//
// The checksum is its only code beside tables of constants. Package write makes
// disks and packages read and check judge them, so an error in code that they
// share would stay unseen. Therefore read and write never import each other, and
// each has its own version of the field positions, the directory hash, the groups
// with backups, the bitmaps, the extent tree, the times, the device numbers and
// the attribute lists.
package format

// Inode numbers with a fixed meaning, EXT4_ROOT_INO and others in
// linux/fs/ext4/ext4.h.
const (
	RootInode      = 2
	ResizeInode    = 7
	JournalInode   = 8
	LostFoundInode = 11 // the first that is not reserved; mke2fs gives it to lost+found
)

// The superblock, struct ext4_super_block of linux/fs/ext4/ext4.h. Offset and
// size are in bytes.
const (
	SuperOffset = 1024
	SuperSize   = 1024
	SuperMagic  = 0xef53
)

// Compatible features, s_feature_compat (EXT4_FEATURE_COMPAT_*).
const (
	CompatHasJournal   = 0x4
	CompatResizeInode  = 0x10
	CompatSparseSuper2 = 0x200
)

// Incompatible features, s_feature_incompat (EXT4_FEATURE_INCOMPAT_*).
const (
	IncompatFiletype = 0x2
	IncompatRecover  = 0x4
	IncompatExtents  = 0x40
	Incompat64Bit    = 0x80
	IncompatFlexBG   = 0x200
	IncompatEAInode  = 0x400
	IncompatCsumSeed = 0x2000
	IncompatLargeDir = 0x4000
)

// Features that a reader may ignore, s_feature_ro_compat
// (EXT4_FEATURE_RO_COMPAT_*).
const (
	ROCompatSparseSuper  = 0x1
	ROCompatGDTCsum      = 0x10
	ROCompatBigalloc     = 0x200
	ROCompatMetadataCsum = 0x400
)

// Flags of a group, bg_flags (EXT4_BG_*).
const (
	GroupInodeUninit = 0x1 // the inode bitmap was never written
	GroupBlockUninit = 0x2 // the block bitmap was never written
	GroupInodeZeroed = 0x4 // the inode table is zero where it is not in use
)

// Flags of an inode, i_flags (EXT4_*_FL).
const (
	FlagIndex      = 0x1000 // the directory has a hash tree
	FlagHugeFile   = 0x40000
	FlagExtents    = 0x80000
	FlagEAInode    = 0x200000 // holds the value of an extended attribute
	FlagInlineData = 0x10000000
)

// Types of file, the upper bits of i_mode (S_IF* in linux/stat.h).
const (
	ModeType        = 0xf000 // mask
	ModeFifo        = 0x1000
	ModeCharDevice  = 0x2000
	ModeDirectory   = 0x4000
	ModeBlockDevice = 0x6000
	ModeRegular     = 0x8000
	ModeSymlink     = 0xa000
)

const (
	// OldInodeSize is EXT4_GOOD_OLD_INODE_SIZE: the bytes of an inode before
	// i_extra_isize.
	OldInodeSize = 128

	// MaxLinks is EXT4_LINK_MAX. With the feature dir_nlink a directory that
	// has more links stores 1.
	MaxLinks = 65000
)

// The extent tree: struct ext4_extent_header, ext4_extent and ext4_extent_idx
// of linux/fs/ext4/ext4_extents.h. All three have ExtentSize bytes.
const (
	ExtentMagic    = 0xf30a
	ExtentSize     = 12
	MaxExtentDepth = 5
	MaxInitialized = 32768 // EXT_INIT_MAX_LEN in blocks; an unwritten extent adds it to its length
)

// Records of a directory, linux/fs/ext4/ext4.h and linux/fs/ext4/namei.c. The
// sizes are in bytes.
const (
	DirEntryHead = 8    // struct ext4_dir_entry_2 without its name
	DirTail      = 12   // struct ext4_dir_entry_tail
	DirTailTag   = 0xde // EXT4_FT_DIR_CSUM
	DXTail       = 8    // struct dx_tail
	DXRootHead   = 32   // struct dx_root before the entries
	DXNodeHead   = 8    // struct dx_node before the entries
	DXEntry      = 8    // struct dx_entry
)

// Types of file in a directory entry (EXT4_FT_* in linux/fs/ext4/ext4.h).
const (
	FileTypeRegular     = 1
	FileTypeDirectory   = 2
	FileTypeCharDevice  = 3
	FileTypeBlockDevice = 4
	FileTypeFifo        = 5
	FileTypeSymlink     = 7
)

// The superblock of the journal, linux/include/linux/jbd2.h. Its numbers are
// big-endian.
const (
	JournalMagic        = 0xc03b3998 // JBD2_MAGIC_NUMBER
	JournalSuperblockV2 = 4          // h_blocktype, JBD2_SUPERBLOCK_V2
)

// Versions of the directory hash (DX_HASH_* in linux/fs/ext4/ext4.h). Each has a
// twin for unsigned characters, whose number is higher by HashUnsigned.
const (
	HashLegacy   = 0
	HashHalfMD4  = 1
	HashTEA      = 2
	HashUnsigned = 3
)
