// Package write writes a tree as an ext4 file system.
//
// It lays out a whole disk before it writes the first byte: Plan is a function
// of the tree and the options alone, so the same image gives the same bytes on
// every host, and Plan refuses everything that ext4 cannot hold. It makes new
// disks only; it never changes one.
package write

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/banger-vm/banger/internal/image/ext4/format"
	"github.com/banger-vm/banger/internal/image/tree"
)

// writer is what Write keeps while a disk is made.
type writer struct {
	*Layout
	disk     *os.File
	seed     uint32 // of checksums
	created  diskTime
	progress func(done, total int64)
	done     int64
	total    int64

	blocksOut metaWriter
	table     tableWriter
	dirs      dirBuilder
	extents   extentList
	value     uint32 // number of the next inode for a value
	values    []numbered
	groups    []groupState
}

// numbered is an inode that waits for its turn in the table.
type numbered struct {
	number uint32
	inode  diskInode
}

// Write makes the disk, an open file of any content; what spools[Direct] would
// hold is in it already when that is nil, written through a DataFile. progress
// may be nil; it is told of bytes. The disk is not synced. After an error, or
// when ctx is done, it is worth nothing.
func (l *Layout) Write(ctx context.Context, disk *os.File, spools []io.ReaderAt, progress func(done, total int64)) error {
	w := &writer{
		Layout: l, disk: disk, progress: progress,
		seed:      format.Checksum(^uint32(0), l.o.UUID[:]),
		blocksOut: metaWriter{f: disk, row: l.meta, end: l.metaEnd},
		dirs:      dirBuilder{hash: newDirHash(l.o.HashSeed)},
		value:     l.lastInode() - l.values + 1,
		groups:    make([]groupState, (l.blocks+groupBlocks-1)/groupBlocks),
	}
	w.table = tableWriter{f: disk, seed: w.seed, groups: w.groups}
	w.created, _ = encodeTime(l.o.Created)
	for i := range l.bodies {
		w.total += int64(l.bodies[i].blocks) * blockSize
	}
	w.total += l.metaEnd * blockSize
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"write file data", func() error { return w.copyBodies(ctx, spools) }},
		{"write reserved inodes", w.reserved},
		{"write inodes", func() error { return w.inodes(ctx) }},
		{"write block groups", w.writeGroups},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	w.report(w.total - w.done)
	return nil
}

func (w *writer) report(bytes int64) {
	w.done += bytes
	if w.progress != nil {
		w.progress(w.done, w.total)
	}
}

// inodes writes all inodes of the tree with the blocks of metadata that they
// have, in the order of their numbers.
func (w *writer) inodes(ctx context.Context) error {
	for i, id := range w.order {
		if i%1024 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		before := w.blocksOut.pos
		if err := w.inode(i, w.t.Inode(id)); err != nil {
			return fmt.Errorf("%s: %w", w.path(i), err)
		}
		if n := w.blocksOut.pos - before; n > 0 {
			w.report(n * blockSize)
		}
	}
	for i := range w.values {
		if err := w.table.put(w.values[i].number, &w.values[i].inode); err != nil {
			return err
		}
	}
	if err := w.table.flush(); err != nil {
		return err
	}
	return w.blocksOut.flush()
}

// inode writes the inode at a position in the order: first its attributes,
// then the blocks of its own, then its extent tree, then itself.
func (w *writer) inode(i int, in tree.Inode) error {
	number := w.numberAt(i)
	at, _ := encodeTime(in.Mtime)
	d := diskInode{
		mode: in.Mode, uid: in.UID, gid: in.GID, links: uint16(in.Links),
		atime: at, ctime: at, mtime: at, crtime: at,
	}
	if len(in.Xattrs) > 0 {
		if err := w.xattrs(&d, in.Xattrs); err != nil {
			return err
		}
	}
	var err error
	switch in.Type {
	case tree.Regular:
		d.mode |= 0x8000
		d.size = in.Size
		w.extents = w.fileExtents(w.extents[:0], i, &in)
		err = w.mapped(&d, number)
	case tree.Directory:
		d.mode |= 0x4000
		err = w.directory(&d, i)
	case tree.Symlink:
		d.mode |= 0xa000
		err = w.symlink(&d, in.Target, number)
	case tree.CharDevice, tree.BlockDevice:
		d.mode |= 0x2000
		if in.Type == tree.BlockDevice {
			d.mode |= 0x4000
		}
		putDevice(d.block[:], in.Major, in.Minor)
	case tree.Fifo:
		d.mode |= 0x1000
	case tree.HardLink: // refused by survey
	}
	if err != nil {
		return err
	}
	return w.table.put(number, &d)
}

// putDevice is ext4's use of old_encode_dev and new_encode_dev of
// linux/kdev_t.h: in the first word or in the second.
func putDevice(block []byte, major, minor uint32) {
	if major < 256 && minor < 256 {
		le.PutUint32(block, major<<8|minor)
		return
	}
	le.PutUint32(block[4:], minor&0xff|major<<8|minor&^0xff<<12)
}

// mapped gives an inode the extents in w.extents.
func (w *writer) mapped(d *diskInode, number uint32) error {
	d.flags |= format.FlagExtents
	for _, x := range w.extents {
		d.sectors += x.count * blockSectors
	}
	d.sectors += uint64(treeBlocks(len(w.extents))) * blockSectors
	return w.extents.encode(d.block[:], inodeSeed(w.seed, number), w.blocksOut.put)
}

// fromMeta sets w.extents to n blocks from a position in the row of metadata.
func (w *writer) fromMeta(pos, n int64) {
	w.extents = w.extents[:0]
	logical := int64(0)
	w.meta.each(pos, n, func(block, count int64) {
		w.extents.add(logical, block, count)
		logical += count
	})
}

func (w *writer) directory(d *diskInode, i int) error {
	number := w.numberAt(i)
	seed := inodeSeed(w.seed, number)
	w.dirs.load(w.t, w.order[i], w.numbers, w.rootExtra(i)...)
	start := w.blocksOut.pos
	put := func(b []byte) error {
		_, err := w.blocksOut.put(b)
		return err
	}
	if err := w.dirs.encode(number, w.parents[i], seed, put); err != nil {
		return err
	}
	if number == format.LostFoundInode && w.dirs.linear {
		if err := w.emptyLeaves(lostFoundBlocks-1, seed); err != nil {
			return err
		}
	}
	if !w.dirs.linear {
		d.flags |= format.FlagIndex
	}
	links := 2 + w.dirs.subdirectories()
	if links > format.MaxLinks {
		links = 1 // dir_nlink: not counted
	}
	d.links = uint16(links)
	n := w.blocksOut.pos - start
	d.size = n * blockSize
	w.fromMeta(start, n)
	return w.mapped(d, number)
}

func (w *writer) emptyLeaves(n int, seed uint32) error {
	b := make([]byte, blockSize)
	emptyLeaf(b, seed)
	for range n {
		if _, err := w.blocksOut.put(b); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) symlink(d *diskInode, target string, number uint32) error {
	d.size = int64(len(target))
	if len(target) <= fastSymlink {
		copy(d.block[:], target)
		return nil
	}
	b := make([]byte, blockSize)
	copy(b, target)
	w.fromMeta(w.blocksOut.pos, 1)
	if _, err := w.blocksOut.put(b); err != nil {
		return err
	}
	return w.mapped(d, number)
}

// xattrs writes the block of attributes and the inodes of values that need
// their own.
func (w *writer) xattrs(d *diskInode, list []tree.Xattr) error {
	set, err := makeXattrs(list)
	if err != nil {
		return err
	}
	d.xattrs = set.encodeInode()
	if len(set.block) == 0 {
		return nil
	}
	for i := range set.block {
		if x := &set.block[i]; x.inode != 0 {
			x.inode = w.value
			w.value++
		}
	}
	b := make([]byte, blockSize)
	at := w.blocksOut.next()
	set.encodeBlock(b, at, w.seed)
	d.acl = uint64(at)
	// Blocks of values count for the inode that has them, too.
	d.sectors += uint64(set.blocks()) * blockSectors
	if _, err := w.blocksOut.put(b); err != nil {
		return err
	}
	for i := range set.block {
		if x := &set.block[i]; x.inode != 0 {
			if err := w.valueInode(x); err != nil {
				return err
			}
		}
	}
	return nil
}

// valueInode writes the value of an attribute as the data of an inode. The
// value's checksum stands in the access time, the count of references in the
// change time and the version (linux/fs/ext4/xattr.c).
func (w *writer) valueInode(x *xattr) error {
	d := diskInode{
		mode: 0x8000 | 0o600, links: 1, size: int64(x.size), flags: format.FlagEAInode, version: 1,
		atime: diskTime{sec: format.Checksum(w.seed, x.value)}, crtime: w.created,
	}
	w.fromMeta(w.blocksOut.pos, blocksOf(d.size))
	b := make([]byte, blockSize)
	for rest := x.value; len(rest) > 0; rest = rest[min(len(rest), blockSize):] {
		clear(b[copy(b, rest):])
		if _, err := w.blocksOut.put(b); err != nil {
			return err
		}
	}
	if err := w.mapped(&d, x.inode); err != nil {
		return err
	}
	w.values = append(w.values, numbered{x.inode, d})
	return nil
}
