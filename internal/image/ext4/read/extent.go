package read

import (
	"fmt"
	"io"
	"math"
	"sort"

	"github.com/banger-vm/banger/internal/image/ext4/format"
	"github.com/banger-vm/banger/internal/image/tree"
)

// Extent maps a range of a file's blocks.
type Extent struct {
	Logical   uint64 // first block in the file
	Physical  uint64 // first block on the disk
	Count     uint64
	Unwritten bool // allocated, and read as zeros
}

// End returns the first block of the file behind the extent.
func (e Extent) End() uint64 { return e.Logical + e.Count }

// Extents reads the extents of an inode, ascending. node is called with every
// block of the tree below the inode; it may be nil.
func (fs *FS) Extents(in *Inode, node func(block uint64) error) ([]Extent, error) {
	switch {
	case in.Flags&format.FlagInlineData != 0:
		return nil, fmt.Errorf("ext4: inode %d: data in the inode cannot be read", in.Number)
	case in.Flags&format.FlagExtents == 0:
		return nil, fmt.Errorf("ext4: inode %d: blocks are not mapped by extents", in.Number)
	}
	t := extentTree{fs: fs, in: in, node: node}
	root := in.Block()
	if err := t.read(root, int(le.Uint16(root[6:])), 0, math.MaxUint32+1, 4); err != nil {
		return nil, fmt.Errorf("ext4: inode %d: %w", in.Number, err)
	}
	return t.out, nil
}

type extentTree struct {
	fs   *FS
	in   *Inode
	node func(uint64) error
	out  []Extent
}

// read takes a node of the given depth whose file blocks lie from first up to
// end. Since nodes must have entries, and entries must ascend within these
// bounds, a block that occurs twice in a tree is an error and no loop.
func (t *extentTree) read(data []byte, depth int, first, end uint64, most int) error {
	count := int(le.Uint16(data[2:]))
	switch {
	case le.Uint16(data) != format.ExtentMagic:
		return fmt.Errorf("extent header: magic number %#04x", le.Uint16(data))
	case int(le.Uint16(data[6:])) != depth || depth > format.MaxExtentDepth:
		return fmt.Errorf("extent header: depth %d", le.Uint16(data[6:]))
	case count > int(le.Uint16(data[4:])) || int(le.Uint16(data[4:])) > most:
		return fmt.Errorf("extent header: %d entries of %d", count, le.Uint16(data[4:]))
	}
	for i := range count {
		e := data[format.ExtentSize*(1+i):][:format.ExtentSize]
		if depth == 0 {
			if err := t.leaf(e, first, end); err != nil {
				return err
			}
			first = t.out[len(t.out)-1].End()
			continue
		}
		next := end
		if i+1 < count {
			next = uint64(le.Uint32(data[format.ExtentSize*(2+i):]))
		}
		key := uint64(le.Uint32(e))
		if key < first || key >= next || next > end {
			return fmt.Errorf("extent index: block %d of the file is out of order", key)
		}
		if err := t.child(uint64(le.Uint32(e[4:]))|uint64(le.Uint16(e[8:]))<<32, depth-1, key, next); err != nil {
			return err
		}
		first = next
	}
	return nil
}

func (t *extentTree) leaf(e []byte, first, end uint64) error {
	x := Extent{
		Logical: uint64(le.Uint32(e)), Count: uint64(le.Uint16(e[4:])),
		Physical: uint64(le.Uint16(e[6:]))<<32 | uint64(le.Uint32(e[8:])),
	}
	if x.Count > format.MaxInitialized {
		x.Count -= format.MaxInitialized
		x.Unwritten = true
	}
	sb := &t.fs.sb
	switch {
	case x.Count == 0 || x.Logical < first || x.End() > end:
		return fmt.Errorf("extent of %d blocks at block %d of the file is out of order", x.Count, x.Logical)
	case x.Physical <= uint64(sb.FirstBlock) || x.Physical >= sb.Blocks || x.Count > sb.Blocks-x.Physical:
		return fmt.Errorf("extent of %d blocks at block %d is not on the disk", x.Count, x.Physical)
	}
	t.out = append(t.out, x)
	return nil
}

func (t *extentTree) child(block uint64, depth int, first, end uint64) error {
	data := t.fs.newBlock()
	if err := t.fs.ReadBlock(block, data); err != nil {
		return err
	}
	most := (len(data) - format.ExtentSize) / format.ExtentSize
	count, room := int(le.Uint16(data[2:])), int(le.Uint16(data[4:]))
	if count == 0 || room > most {
		return fmt.Errorf("extent block %d: %d entries of %d", block, count, room)
	}
	if t.fs.sb.MetadataCsum() {
		tail := format.ExtentSize * (1 + room)
		if tail+4 > len(data) || format.Checksum(t.in.seed, data[:tail]) != le.Uint32(data[tail:]) {
			return fmt.Errorf("extent block %d: checksum does not fit", block)
		}
	}
	if t.node != nil {
		if err := t.node(block); err != nil {
			return err
		}
	}
	if err := t.read(data, depth, first, end, most); err != nil {
		return fmt.Errorf("extent block %d: %w", block, err)
	}
	return nil
}

// File is the data of an inode. It is safe for concurrent use.
type File struct {
	fs      *FS
	in      *Inode
	size    int64
	extents []Extent
}

// Data opens the data of a regular file, a directory or a long symlink.
func (fs *FS) Data(in *Inode) (*File, error) {
	extents, err := fs.Extents(in, nil)
	if err != nil {
		return nil, err
	}
	return &File{fs: fs, in: in, size: in.Size, extents: extents}, nil
}

// Size returns the file's size in bytes, holes included.
func (f *File) Size() int64 { return f.size }

// Runs returns where the file has data, in bytes, ascending, not adjacent and
// within its size. The rest are holes, and allocated blocks that were never
// written.
func (f *File) Runs() []tree.Run {
	var runs []tree.Run
	bs := int64(f.fs.sb.BlockSize)
	for _, e := range f.extents {
		from, to := int64(e.Logical)*bs, min(int64(e.End())*bs, f.size)
		if e.Unwritten || from >= to {
			continue
		}
		if n := len(runs); n > 0 && runs[n-1].Offset+runs[n-1].Length == from {
			runs[n-1].Length += to - from
			continue
		}
		runs = append(runs, tree.Run{Offset: from, Length: to - from})
	}
	return runs
}

// ReadAt implements io.ReaderAt. Holes are zeros.
func (f *File) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("ext4: inode %d: read at %d", f.in.Number, off)
	}
	if off >= f.size {
		return 0, io.EOF
	}
	if int64(len(p)) > f.size-off {
		p, err = p[:f.size-off], io.EOF
	}
	for n < len(p) {
		k, err := f.readPart(p[n:], off+int64(n))
		n += k
		if err != nil {
			return n, fmt.Errorf("ext4: inode %d: %w", f.in.Number, err)
		}
	}
	return n, err
}

// readPart reads up to the end of an extent or of a hole.
func (f *File) readPart(p []byte, off int64) (int, error) {
	bs := int64(f.fs.sb.BlockSize)
	i := sort.Search(len(f.extents), func(i int) bool { return int64(f.extents[i].End())*bs > off })
	if i == len(f.extents) {
		clear(p)
		return len(p), nil
	}
	e := f.extents[i]
	start, end := int64(e.Logical)*bs, int64(e.End())*bs
	if off < start {
		p = p[:min(int64(len(p)), start-off)]
		clear(p)
		return len(p), nil
	}
	p = p[:min(int64(len(p)), end-off)]
	if e.Unwritten {
		clear(p)
		return len(p), nil
	}
	return f.fs.r.ReadAt(p, int64(e.Physical)*bs+off-start)
}
