// Package check checks the consistency of an ext4 file system.
//
// It finds damage and the mistakes of a writer. Unlike e2fsck it repairs nothing.
// It reads the disk through package read, and it shares no code with package
// write because it judges the disks of that package.
package check

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"github.com/banger-vm/banger/internal/image/ext4/format"
	"github.com/banger-vm/banger/internal/image/ext4/read"
	"github.com/banger-vm/banger/internal/image/tree"
)

var le = binary.LittleEndian

// maxProblems is the largest number of problems in a report. A disk can have one
// for each of its blocks.
const maxProblems = 1000

// Metadata checks all metadata of the file system and returns a line for each
// problem. It checks the checksums, compares the bitmaps and counts with the
// blocks and inodes in use, and finds blocks that are used twice. It checks
// links, directories and their hash trees, extended attributes, the backups of
// the superblock, the superblock of the journal and the resize inode. It does
// not read the content of files. The only error that it returns is the one of
// ctx.
func Metadata(ctx context.Context, fs *read.FS) ([]string, error) {
	groups := fs.Groups()
	c := &checker{
		fs: fs, sb: fs.Super(), groups: groups,
		used: make([][]byte, len(groups)), inodes: make([][]inodeState, len(groups)),
		xattrBlocks: map[uint64]uint32{}, valueInodes: map[uint32]uint64{},
	}
	c.superblock()
	for g := range c.groups {
		c.fixedBlocks(uint32(g))
	}
	for g := range c.groups {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		c.inodeTable(uint32(g))
	}
	if err := c.directories(ctx); err != nil {
		return nil, err
	}
	c.references()
	c.journal()
	c.resizeInode()
	for g := range c.groups {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		c.blockBitmap(uint32(g))
	}
	c.totals()
	return c.report(), nil
}

// checker holds the state of one check.
type checker struct {
	fs       *read.FS
	sb       *read.Superblock
	groups   []read.Group
	problems []string
	more     int // problems beyond maxProblems

	used   [][]byte       // by group: the bitmap of the blocks in use, nil for none
	inodes [][]inodeState // by group; nil if no inode of the group is in use
	dirs   []uint32       // inode numbers of all directories

	xattrBlocks map[uint64]uint32 // block of extended attributes -> number of inodes that use it
	valueInodes map[uint32]uint64 // inode that holds the value of an attribute -> number of users

	freeBlocks uint64 // counted, of all groups
	freeInodes uint64
}

// inodeState records the facts about an inode that checks of other inodes need.
type inodeState struct {
	links   uint32 // i_links_count
	names   uint32 // directory entries that lead here, . and .. included
	dotdot  uint32 // of a directory: the inode to which .. leads or must lead, 0 if not known yet
	typ     tree.Type
	inUse   bool
	isValue bool // the inode holds the value of an extended attribute
	reached bool // of a directory: there is a path from the root to it
}

func (c *checker) newBlock() []byte { return make([]byte, c.sb.BlockSize) }

func (c *checker) problem(format string, args ...any) {
	if len(c.problems) == maxProblems {
		c.more++
		return
	}
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

func (c *checker) report() []string {
	if c.more > 0 {
		return append(c.problems, fmt.Sprintf("and %d more", c.more))
	}
	return append([]string{}, c.problems...)
}

// state returns the state of inode n, for reading and writing.
func (c *checker) state(n uint32) *inodeState {
	per := c.sb.InodesPerGroup
	g := (n - 1) / per
	if c.inodes[g] == nil {
		c.inodes[g] = make([]inodeState, per)
	}
	return &c.inodes[g][(n-1)%per]
}

// roChecked is the set of read-only compatible features under which the check is
// right (EXT4_FEATURE_RO_COMPAT_* in linux/fs/ext4/ext4.h): sparse_super,
// large_file, huge_file, gdt_csum, dir_nlink, extra_isize, quota, metadata_csum,
// readonly, project and orphan_present.
const roChecked = 0x1 | 0x2 | 0x8 | 0x10 | 0x20 | 0x40 | 0x100 | 0x400 | 0x1000 | 0x2000 | 0x10000

func (c *checker) superblock() {
	raw := c.sb.Raw[:]
	if state := le.Uint16(raw[0x3a:]); state != 1 {
		c.problem("superblock: state %#x is not clean", state)
	}
	if orphan := le.Uint32(raw[0xe8:]); orphan != 0 {
		c.problem("superblock: inode %d was deleted but not freed", orphan)
	}
	if unknown := c.sb.ROCompat &^ roChecked; unknown != 0 {
		c.problem("superblock: features %#x cannot be checked", unknown)
	}
	if n := le.Uint16(raw[0x5a:]); n != 0 {
		c.problem("superblock: says that it is the backup of group %d", n)
	}
}

// fixedBlocks checks the descriptor and the backups of group n, and claims the
// blocks of the group's own metadata.
func (c *checker) fixedBlocks(n uint32) {
	g := &c.groups[n]
	if c.sb.HasSuper(n) {
		start := c.sb.GroupStart(n)
		count := 1 + c.sb.DescBlocks()
		if c.sb.Compat&format.CompatResizeInode != 0 {
			count += uint64(c.sb.ReservedGDT)
		}
		c.claim(start, count, "superblock and descriptors")
		if n > 0 {
			c.backup(n, start)
		}
	}
	if g.Err != nil {
		c.problem("%v", g.Err)
		return
	}
	c.claim(g.BlockBitmap, 1, "block bitmap")
	c.claim(g.InodeBitmap, 1, "inode bitmap")
	c.claim(g.InodeTable, c.sb.TableBlocks(), "inode table")
}

// backup checks the copies of the superblock and of the descriptors in group n,
// which begins at block start. Only e2fsprogs updates the copies; the kernel does
// not. So they need to agree only in the fields that do not change in use.
func (c *checker) backup(n uint32, start uint64) {
	block := c.newBlock()
	if err := c.fs.ReadBlock(start, block); err != nil {
		c.problem("group %d: backup: %v", n, err)
		return
	}
	raw := block[:format.SuperSize]
	if c.sb.MetadataCsum() && format.Checksum(^uint32(0), raw[:0x3fc]) != le.Uint32(raw[0x3fc:]) {
		c.problem("group %d: checksum of the backup superblock does not fit", n)
	}
	// The counts of inodes and blocks, the geometry, magic number, revision, inode
	// size, UUID, hash seed and descriptor size.
	for _, f := range [][2]int{{0, 8}, {0x14, 0x2c}, {0x38, 0x3a}, {0x4c, 0x50}, {0x54, 0x5a}, {0x68, 0x78}, {0xec, 0xfc}, {0xfe, 0x100}} {
		if !bytes.Equal(raw[f[0]:f[1]], c.sb.Raw[f[0]:f[1]]) {
			c.problem("group %d: backup superblock differs at %#x", n, f[0])
		}
	}
	if got := le.Uint16(raw[0x5a:]); got != uint16(n) {
		c.problem("group %d: backup superblock says group %d", n, got)
	}
	per := c.sb.BlockSize / c.sb.DescSize
	for g := range c.groups {
		if g%per == 0 {
			if err := c.fs.ReadBlock(start+1+uint64(g/per), block); err != nil {
				c.problem("group %d: backup descriptors: %v", n, err)
				return
			}
		}
		c.backupGroup(n, uint32(g), block[g%per*c.sb.DescSize:][:c.sb.DescSize])
	}
}

// backupGroup checks the copy, in group n, of the descriptor of group g.
func (c *checker) backupGroup(n, g uint32, raw []byte) {
	d := read.DecodeGroup(raw)
	have := &c.groups[g]
	if want, ok := c.fs.GroupChecksum(g, raw); ok && want != le.Uint16(raw[0x1e:]) {
		c.problem("group %d: checksum of the backup descriptor of group %d does not fit", n, g)
	} else if have.Err == nil && (d.BlockBitmap != have.BlockBitmap || d.InodeBitmap != have.InodeBitmap || d.InodeTable != have.InodeTable) {
		c.problem("group %d: backup descriptor of group %d differs", n, g)
	}
}

// totals compares the superblock's counts with the sums over the groups.
func (c *checker) totals() {
	if c.freeBlocks != c.sb.FreeBlocks {
		c.problem("superblock: %d free blocks, counted %d", c.sb.FreeBlocks, c.freeBlocks)
	}
	if c.freeInodes != uint64(c.sb.FreeInodes) {
		c.problem("superblock: %d free inodes, counted %d", c.sb.FreeInodes, c.freeInodes)
	}
}
