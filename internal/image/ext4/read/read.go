// Package read reads ext4 file systems. It trusts nothing on the disk: every
// number is bounded and every checksum verified, and damage is an error that
// names its block or inode. It never writes.
//
// Package check uses its exported forms of the superblock, the group
// descriptors, the extents and the attribute lists.
package read

import (
	"fmt"
	"io"

	"github.com/banger-vm/banger/internal/image/ext4/format"
	"github.com/banger-vm/banger/internal/image/tree"
)

// RootInode is the number of the root directory's inode.
const RootInode = format.RootInode

// FS is an ext4 file system opened for reading. It is safe for concurrent
// use. Nothing on the disk is trusted: what is read is bounded, checked and
// refused with the number of its block or inode.
type FS struct {
	r      io.ReaderAt
	sb     Superblock
	groups []Group
	seed   uint32 // of metadata checksums
}

// Open reads the superblock and the group descriptors of a disk of size bytes.
// It refuses features that it would misread, by name, and a disk whose
// journal was not replayed.
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

// BlockSize returns the size of a block in bytes.
func (fs *FS) BlockSize() int { return fs.sb.BlockSize }

// Size returns the size of the file system in bytes.
func (fs *FS) Size() int64 { return int64(fs.sb.Blocks) * int64(fs.sb.BlockSize) }

// Label returns the volume's label.
func (fs *FS) Label() string { return fs.sb.Label }

// UUID returns the volume's UUID.
func (fs *FS) UUID() [16]byte { return fs.sb.UUID }

// Super returns the decoded superblock. The caller must not change it.
func (fs *FS) Super() *Superblock { return &fs.sb }

// Groups returns the decoded group descriptors. The caller must not change
// them.
func (fs *FS) Groups() []Group { return fs.groups }

// Inodes returns how many inodes there are, in use or not.
func (fs *FS) Inodes() uint32 { return fs.sb.Inodes }

// ReadBlock reads a whole block, which must lie on the disk.
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

// Walk calls visit for every name of the tree below the root, a directory
// before what is in it, in the order of the disk. Paths are relative to the
// root; the root's own is ".". A directory that has itself above it, or that
// two names lead to, is an error.
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
	seen  map[uint32]bool // directories
}

// dir goes through a directory with no recursion while its blocks are read:
// the names are taken first, so that depth costs names and not blocks.
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
