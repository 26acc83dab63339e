// Package read reads ext4 file systems from disks that it does not trust. It
// bounds every number and verifies every checksum, and it returns an error with
// the number of the block or inode if one is wrong. It never writes.
//
// It holds field positions as plain offsets of the structs in
// linux/fs/ext4/ext4.h. Package write holds them as structs. The two are
// separate on purpose: a field in the wrong place cannot be wrong on both sides.
//
// The superblock, the group descriptors, the extents, the attribute lists and
// the hash trees are exported for package check. Other packages need FS, Inode,
// DirEntry and File.
package read

import (
	"fmt"
	"io"

	"github.com/banger-vm/banger/internal/image/ext4/format"
	"github.com/banger-vm/banger/internal/image/tree"
)

// RootInode is the inode number of the root directory.
const RootInode = format.RootInode

// FS is an ext4 file system opened for reading. It is safe for concurrent use.
type FS struct {
	r      io.ReaderAt
	sb     Superblock
	groups []Group
	seed   uint32 // of metadata checksums
}

// Open reads the superblock and the group descriptors of a disk of size bytes.
// It returns an error if the disk has features that the package would misread,
// with their names, or if the journal was not replayed. It does not report a
// damaged group descriptor: Inode does, for each inode of that group.
func Open(r io.ReaderAt, size int64) (*FS, error) {
	raw := make([]byte, format.SuperSize)
	if size < format.SuperOffset+format.SuperSize {
		return nil, fmt.Errorf("ext4: disk of %d bytes is too small for a superblock", size)
	}
	if _, err := r.ReadAt(raw, format.SuperOffset); err != nil {
		return nil, fmt.Errorf("ext4: read superblock: %w", err)
	}
	fs := &FS{r: r}
	if err := fs.sb.decode(raw, size); err != nil {
		return nil, fmt.Errorf("ext4: superblock: %w", err)
	}
	fs.seed = fs.sb.ChecksumSeed
	if err := fs.readGroups(); err != nil {
		return nil, fmt.Errorf("ext4: %w", err)
	}
	return fs, nil
}

// Super returns the decoded superblock. The caller must not change it.
func (fs *FS) Super() *Superblock { return &fs.sb }

// Groups returns the decoded group descriptors. The caller must not change
// them.
func (fs *FS) Groups() []Group { return fs.groups }

// ReadBlock reads block n into buf, which must have room for a block. It returns
// an error if the block lies outside of the file system.
func (fs *FS) ReadBlock(n uint64, buf []byte) error {
	if n < uint64(fs.sb.FirstBlock) || n >= fs.sb.Blocks {
		return fmt.Errorf("block %d is not on the disk", n)
	}
	if _, err := fs.r.ReadAt(buf[:fs.sb.BlockSize], int64(n)*int64(fs.sb.BlockSize)); err != nil {
		return fmt.Errorf("read block %d: %w", n, err)
	}
	return nil
}

func (fs *FS) newBlock() []byte { return make([]byte, fs.sb.BlockSize) }

// Walk calls visit for the root and for every name below it, in the order of
// the disk. A directory comes before its contents. Paths are relative to the
// root; the path of the root is ".". Walk returns an error if a directory
// contains itself or has two names. It stops at the first error of visit and
// returns it as it is.
func (fs *FS) Walk(visit func(path string, in *Inode) error) error {
	root, err := fs.Inode(format.RootInode)
	if err != nil {
		return err
	}
	if err := visit(".", root); err != nil {
		return err
	}
	w := walker{fs: fs, visit: visit, seen: map[uint32]bool{format.RootInode: true}}
	return w.dir("", root)
}

type walker struct {
	fs    *FS
	visit func(string, *Inode) error
	seen  map[uint32]bool // inode numbers of directories
}

// dir visits the contents of a directory. It collects all names before it
// descends: so a deep tree holds names in memory, but no blocks of directories.
func (w *walker) dir(prefix string, dir *Inode) error {
	var names []DirEntry
	err := w.fs.ReadDir(dir, func(e DirEntry) error {
		if e.Name != "." && e.Name != ".." {
			names = append(names, e)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, e := range names {
		in, err := w.fs.Inode(e.Inode)
		if err != nil {
			return fmt.Errorf("%s%s: %w", prefix, e.Name, err)
		}
		if err := w.visit(prefix+e.Name, in); err != nil {
			return err
		}
		if in.Type != tree.Directory {
			continue
		}
		if w.seen[e.Inode] {
			return fmt.Errorf("%s%s: ext4: directory inode %d has a second name", prefix, e.Name, e.Inode)
		}
		w.seen[e.Inode] = true
		if err := w.dir(prefix+e.Name+"/", in); err != nil {
			return err
		}
	}
	return nil
}
