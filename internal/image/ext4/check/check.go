// Package check judges the consistency of an ext4 file system.
//
// It is no e2fsck: it finds damage and mistakes of a writer, and mends
// nothing. It reads the disk through package read and shares no code with
// package write, whose disks it judges.
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

// maxProblems bounds the report on a disk that is wrong all over.
const maxProblems = 1000

// Metadata checks all metadata of the file system and returns a line for each
// fault: checksums, bitmaps and counts against what is in use,
// blocks used twice, links, directories and their hash trees, the backups,
// the journal's superblock and the resize inode. It does not read the content
// of files. The error is that of ctx.
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

// checker is a check under way.
type checker struct {
	fs       *read.FS
	sb       *read.Superblock
	groups   []read.Group
	problems []string
	more     int // problems beyond maxProblems

	used   [][]byte // blocks in use by group, as bitmaps of the disk's form; nil: none
	inodes [][]inodeState
	dirs   []uint32

	xattrBlocks map[uint64]uint32 // users of each block of attributes
	valueInodes map[uint32]uint64 // users of each inode that holds an attribute's value

	freeBlocks uint64
	freeInodes uint64
}

// inodeState is what the check knows of an inode.
type inodeState struct {
	links   uint32 // that it says it has
	names   uint32 // that were found, . and .. among them
	dotdot  uint32 // of a directory: where its .. leads
	typ     tree.Type
	inUse   bool
	isValue bool // holds an extended attribute
	reached bool // of a directory: from the root
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

// state gives the place of an inode, making room for its group.
func (c *checker) state(n uint32) *inodeState {
	per := c.sb.InodesPerGroup
	g := (n - 1) / per
	if c.inodes[g] == nil {
		c.inodes[g] = make([]inodeState, per)
	}
	return &c.inodes[g][(n-1)%per]
}

// Features of the read-only kind that change nothing about what is checked.
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

// fixedBlocks checks a group's descriptor and backups and notes the blocks
// that metadata has in fixed places.
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

// backup checks the copy of the superblock and of the descriptors in group n.
// What changes while a file system is in use is brought up to date in the
// copies only by e2fsprogs, so that only the geometry has to agree.
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
