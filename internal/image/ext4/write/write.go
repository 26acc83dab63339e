// Package write writes a tree as an ext4 file system.
//
// It lays out the whole disk before it writes the first byte. The layout is a
// function of the tree and the options alone, so the same image gives the same
// bytes on every host. Plan returns an error for everything that ext4 cannot hold,
// so Write fails only if the host does. The package makes new disks; it does not
// change existing ones.
package write

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/banger-vm/banger/internal/image/ext4/format"
	"github.com/banger-vm/banger/internal/image/tree"
)

// writer holds the state of one call of Write.
type writer struct {
	*Layout
	disk     *os.File
	seed     uint32 // of checksums
	created  diskTime
	progress func(done, total int64)
	done     int64 // bytes written
	total    int64 // bytes to write

	metaOut   metaWriter
	table     tableWriter
	dirs      dirBuilder
	extents   extentList // of the current inode
	nextValue uint32     // number of the next inode that holds the value of an attribute
	pending   []pendingInode
	groups    []groupState
}

// pendingInode is an inode to write after those of the tree, because its number is
// higher.
type pendingInode struct {
	number uint32
	inode  diskInode
}

// Write writes the file system to disk, an open file of any content. It copies the
// bodies of the regular files from spools, which has one spool for each layer. If
// spools[Options.Direct] is nil, the bodies of this layer are in disk already,
// written through a DataFile. Write calls progress, which may be nil, with the
// number of bytes written and their total. It does not sync the disk. If it returns
// an error, the disk has no valid file system.
func (l *Layout) Write(ctx context.Context, disk *os.File, spools []io.ReaderAt, progress func(done, total int64)) error {
	w := &writer{
		Layout: l, disk: disk, progress: progress,
		seed:      format.Checksum(^uint32(0), l.o.UUID[:]),
		metaOut:   metaWriter{f: disk, space: l.meta, end: l.metaEnd},
		dirs:      dirBuilder{hash: newDirHash(l.o.HashSeed)},
		nextValue: l.lastInode() - l.valueInodes + 1,
		groups:    make([]groupState, (l.blocks+groupBlocks-1)/groupBlocks),
	}
	w.table = tableWriter{f: disk, seed: w.seed, groups: w.groups}
	w.created, _ = encodeTime(l.o.Created)
	for i := range l.bodies {
		w.total += int64(l.bodies[i].blocks) * blockSize
	}
	w.total += l.metaEnd * blockSize
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"write file data", func() error { return w.copyBodies(ctx, spools) }},
		{"write reserved inodes", w.reserved},
		{"write inodes", func() error { return w.inodes(ctx) }},
		{"write block groups", w.writeGroups},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
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

// inodes writes all inodes of the tree and their blocks of metadata, in the order of
// the inode numbers.
func (w *writer) inodes(ctx context.Context) error {
	for i, id := range w.order {
		if i%1024 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		before := w.metaOut.pos
		if err := w.inode(i, w.t.Inode(id)); err != nil {
			return fmt.Errorf("%s: %w", w.path(i), err)
		}
		if n := w.metaOut.pos - before; n > 0 {
			w.report(n * blockSize)
		}
	}
	for i := range w.pending {
		if err := w.table.put(w.pending[i].number, &w.pending[i].inode); err != nil {
			return err
		}
	}
	if err := w.table.flush(); err != nil {
		return err
	}
	return w.metaOut.flush()
}

// inode writes the inode at a position in the order. It writes the extended
// attributes, the blocks of a directory or symlink, the extent tree and last the
// inode itself.
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
		d.mode |= format.ModeRegular
		d.size = in.Size
		w.extents = w.fileExtents(w.extents[:0], i, &in)
		err = w.mapped(&d, number)
	case tree.Directory:
		d.mode |= format.ModeDirectory
		err = w.directory(&d, i)
	case tree.Symlink:
		d.mode |= format.ModeSymlink
		err = w.symlink(&d, in.Target, number)
	case tree.CharDevice:
		d.mode |= format.ModeCharDevice
		putDevice(d.block[:], in.Major, in.Minor)
	case tree.BlockDevice:
		d.mode |= format.ModeBlockDevice
		putDevice(d.block[:], in.Major, in.Minor)
	case tree.Fifo:
		d.mode |= format.ModeFifo
	case tree.HardLink: // refused by survey
	}
	if err != nil {
		return err
	}
	return w.table.put(number, &d)
}

// putDevice writes a device number to i_block: by old_encode_dev of linux/kdev_t.h
// to the first word, or, if it is too large for that, by new_encode_dev to the
// second.
func putDevice(block []byte, major, minor uint32) {
	if major < 256 && minor < 256 {
		le.PutUint32(block, major<<8|minor)
		return
	}
	le.PutUint32(block[4:], minor&0xff|major<<8|minor&^0xff<<12)
}

// mapped writes w.extents as the extent tree of an inode and adds their blocks to
// i_blocks.
func (w *writer) mapped(d *diskInode, number uint32) error {
	d.flags |= format.FlagExtents
	for _, x := range w.extents {
		d.sectors += x.count * blockSectors
	}
	d.sectors += uint64(treeBlocks(len(w.extents))) * blockSectors
	return w.extents.encode(d.block[:], inodeSeed(w.seed, number), w.metaOut.put)
}

// fromMeta sets w.extents to the n blocks from position pos of the metadata space.
func (w *writer) fromMeta(pos, n int64) {
	w.extents = w.extents[:0]
	logical := int64(0)
	w.meta.each(pos, n, func(block, count int64) {
		w.extents.add(logical, block, count)
		logical += count
	})
}

// directory writes the blocks of the directory at a position in the order and
// completes its inode.
func (w *writer) directory(d *diskInode, i int) error {
	number := w.numberAt(i)
	seed := inodeSeed(w.seed, number)
	w.dirs.load(w.t, w.order[i], w.numbers, w.rootExtra(i)...)
	start := w.metaOut.pos
	put := func(b []byte) error {
		_, err := w.metaOut.put(b)
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
		links = 1 // not counted, by the feature dir_nlink
	}
	d.links = uint16(links)
	n := w.metaOut.pos - start
	d.size = n * blockSize
	w.fromMeta(start, n)
	return w.mapped(d, number)
}

// emptyLeaves writes n blocks of a directory without names.
func (w *writer) emptyLeaves(n int, seed uint32) error {
	b := make([]byte, blockSize)
	emptyLeaf(b, seed)
	for range n {
		if _, err := w.metaOut.put(b); err != nil {
			return err
		}
	}
	return nil
}

// symlink writes a target to the inode, or to a block if it is too long.
func (w *writer) symlink(d *diskInode, target string, number uint32) error {
	d.size = int64(len(target))
	if len(target) <= fastSymlink {
		copy(d.block[:], target)
		return nil
	}
	b := make([]byte, blockSize)
	copy(b, target)
	w.fromMeta(w.metaOut.pos, 1)
	if _, err := w.metaOut.put(b); err != nil {
		return err
	}
	return w.mapped(d, number)
}

// xattrs adds the extended attributes to an inode. It writes the block of
// attributes and the values that take an inode of their own.
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
			x.inode = w.nextValue
			w.nextValue++
		}
	}
	b := make([]byte, blockSize)
	at := w.metaOut.next()
	set.encodeBlock(b, at, w.seed)
	d.acl = uint64(at)
	// The blocks of values in inodes of their own count for this inode, too.
	d.sectors += uint64(set.blocks()) * blockSectors
	if _, err := w.metaOut.put(b); err != nil {
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

// valueInode writes the value of an attribute as the data of an inode. The access
// time of the inode holds the checksum of the value. The change time and the
// version hold the number of references (linux/fs/ext4/xattr.c).
func (w *writer) valueInode(x *xattr) error {
	d := diskInode{
		mode: format.ModeRegular | 0o600, links: 1, size: int64(x.size), flags: format.FlagEAInode, version: 1,
		atime: diskTime{sec: format.Checksum(w.seed, x.value)}, crtime: w.created,
	}
	w.fromMeta(w.metaOut.pos, blocksOf(d.size))
	b := make([]byte, blockSize)
	for rest := x.value; len(rest) > 0; rest = rest[min(len(rest), blockSize):] {
		clear(b[copy(b, rest):])
		if _, err := w.metaOut.put(b); err != nil {
			return err
		}
	}
	if err := w.mapped(&d, x.inode); err != nil {
		return err
	}
	w.pending = append(w.pending, pendingInode{x.inode, d})
	return nil
}
