package read

import (
	"errors"
	"fmt"
	"strings"

	"github.com/banger-vm/banger/internal/image/ext4/format"
	"github.com/banger-vm/banger/internal/image/tree"
)

// DirEntry is an entry of a directory.
type DirEntry struct {
	Name  string
	Inode uint32
	Type  tree.Type // from the directory, not the inode; 0 for a socket or if it is missing
}

// ReadDir calls visit for every entry of a directory, "." and ".." included, in
// the order of its blocks. It ignores the hash tree. It stops at the first error
// of visit and returns it as it is.
func (fs *FS) ReadDir(dir *Inode, visit func(DirEntry) error) error {
	f, err := fs.openDir(dir)
	if err != nil {
		return err
	}
	for n := range f.blocks() {
		block, err := f.read(n)
		if err != nil {
			return err
		}
		if block.entries == nil {
			continue
		}
		if err := f.each(block, visit); err != nil {
			return err
		}
	}
	return nil
}

// dirFile is a directory opened for reading.
type dirFile struct {
	*File
}

// openDir opens a directory. It returns an error if the directory is empty or
// has holes.
func (fs *FS) openDir(dir *Inode) (*dirFile, error) {
	if dir.Type != tree.Directory {
		return nil, fmt.Errorf("ext4: inode %d is not a directory", dir.Number)
	}
	f, err := fs.Data(dir)
	if err != nil {
		return nil, err
	}
	d := &dirFile{f}
	if dir.Size == 0 || dir.Size%int64(fs.sb.BlockSize) != 0 {
		return nil, d.errorf(0, "directory of %d bytes", dir.Size)
	}
	next := uint64(0)
	for _, e := range f.extents {
		if e.Logical != next || e.Unwritten {
			return nil, d.errorf(int(next), "a hole")
		}
		next = e.End()
	}
	if next != uint64(d.blocks()) {
		return nil, d.errorf(int(next), "%d blocks mapped of %d", next, d.blocks())
	}
	return d, nil
}

func (d *dirFile) blocks() int { return int(d.size / int64(d.fs.sb.BlockSize)) }

func (d *dirFile) errorf(block int, format string, args ...any) error {
	return fmt.Errorf("ext4: directory inode %d: block %d: %s", d.in.Number, block, fmt.Sprintf(format, args...))
}

// dirBlock is a block of a directory.
type dirBlock struct {
	number  int
	data    []byte
	entries []byte // the part of data with entries; nil in a node of the hash tree below the root
}

// read reads block n and verifies its checksum.
func (d *dirFile) read(n int) (dirBlock, error) {
	b := dirBlock{number: n, data: d.fs.newBlock()}
	if _, err := d.ReadAt(b.data, int64(n)*int64(len(b.data))); err != nil {
		return b, err
	}
	if head, ok := d.indexHead(b); ok {
		if _, err := d.indexEntries(b, head); err != nil {
			return b, err
		}
		if head == format.DXRootHead {
			b.entries = b.data // "." and "..", whose length covers the rest
		}
		return b, nil
	}
	b.entries = b.data
	if !d.fs.sb.MetadataCsum() {
		return b, nil
	}
	end := len(b.data) - format.DirTail
	tail := b.data[end:]
	if le.Uint32(tail) != 0 || le.Uint16(tail[4:]) != format.DirTail || tail[6] != 0 || tail[7] != format.DirTailTag {
		return b, d.errorf(n, "no checksum")
	}
	if format.Checksum(d.in.seed, b.data[:end]) != le.Uint32(tail[8:]) {
		return b, d.errorf(n, "checksum does not fit")
	}
	b.entries = b.data[:end]
	return b, nil
}

// indexHead reports whether b is a node of the hash tree and returns the number
// of bytes before its entries. A node below the root looks like a directory block
// with one unused entry of the block's length.
func (d *dirFile) indexHead(b dirBlock) (int, bool) {
	switch {
	case d.in.Flags&format.FlagIndex == 0:
		return 0, false
	case b.number == 0:
		return format.DXRootHead, true
	}
	empty := le.Uint32(b.data) == 0 && int(le.Uint16(b.data[4:])) == len(b.data)
	return format.DXNodeHead, empty
}

// each calls visit for the entries of one block.
func (d *dirFile) each(b dirBlock, visit func(DirEntry) error) error {
	for at := 0; at < len(b.entries); {
		rest := b.entries[at:]
		if len(rest) < format.DirEntryHead {
			return d.errorf(b.number, "entry at %d is cut off", at)
		}
		length, nameLen := int(le.Uint16(rest[4:])), int(rest[6])
		if length < format.DirEntryHead+nameLen || length%4 != 0 || length > len(rest) {
			return d.errorf(b.number, "entry at %d has %d bytes and a name of %d", at, length, nameLen)
		}
		at += length
		e := DirEntry{Inode: le.Uint32(rest), Name: string(rest[format.DirEntryHead : format.DirEntryHead+nameLen]), Type: direntType(rest[7])}
		if e.Inode == 0 {
			continue
		}
		if e.Inode > d.fs.sb.Inodes || e.Name == "" || strings.ContainsAny(e.Name, "/\x00") {
			return d.errorf(b.number, "name %q for inode %d", e.Name, e.Inode)
		}
		if err := visit(e); err != nil {
			return err
		}
	}
	return nil
}

// direntType returns the type of file that a directory entry gives.
func direntType(b byte) tree.Type {
	switch b {
	case format.FileTypeRegular:
		return tree.Regular
	case format.FileTypeDirectory:
		return tree.Directory
	case format.FileTypeCharDevice:
		return tree.CharDevice
	case format.FileTypeBlockDevice:
		return tree.BlockDevice
	case format.FileTypeFifo:
		return tree.Fifo
	case format.FileTypeSymlink:
		return tree.Symlink
	}
	return 0
}

// Lookup returns the inode number of a name in a directory, or 0 if the
// directory has no such name. In a directory with a hash tree it searches only
// the blocks that the kernel searches.
func (fs *FS) Lookup(dir *Inode, name string) (uint32, error) {
	d, err := fs.openDir(dir)
	if err != nil {
		return 0, err
	}
	if dir.Flags&format.FlagIndex == 0 {
		return d.scan(name, 0, d.blocks())
	}
	if name == "." || name == ".." {
		return d.scan(name, 0, 1)
	}
	index, err := d.openIndex()
	if err != nil {
		return 0, err
	}
	hash, err := fs.nameHash(index.version, name)
	if err != nil {
		return 0, d.errorf(0, "%v", err)
	}
	path, err := index.find(hash)
	if err != nil {
		return 0, err
	}
	for {
		leaf := int(path[len(path)-1].block())
		if n, err := d.scan(name, leaf, leaf+1); n != 0 || err != nil {
			return n, err
		}
		more, err := index.next(path, hash)
		if !more || err != nil {
			return 0, err
		}
	}
}

var errFound = errors.New("found")

// scan searches the blocks from first up to end for a name and returns its inode
// number, or 0.
func (d *dirFile) scan(name string, first, end int) (found uint32, err error) {
	for n := first; n < end; n++ {
		b, err := d.read(n)
		if err != nil {
			return 0, err
		}
		err = d.each(b, func(e DirEntry) error {
			if e.Name == name {
				found = e.Inode
				return errFound
			}
			return nil
		})
		if errors.Is(err, errFound) {
			return found, nil
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, nil
}
