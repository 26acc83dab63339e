package read

import (
	"fmt"
	"math"

	"github.com/banger-vm/banger/internal/image/ext4/format"
)

// Extent maps a range of blocks of a file to blocks of the disk.
type Extent struct {
	Logical   uint64 // first block in the file
	Physical  uint64 // first block on the disk
	Count     uint64
	Unwritten bool // the blocks are allocated and read as zeros
}

// End returns the number of the file's first block behind the extent.
func (e Extent) End() uint64 { return e.Logical + e.Count }

// Extents reads the extents of an inode, in ascending order. It calls node,
// which may be nil, for every block of the extent tree outside of the inode.
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

// extentTree collects the extents of one inode.
type extentTree struct {
	fs   *FS
	in   *Inode
	node func(uint64) error
	out  []Extent
}

// read reads the node in data, which has the given depth, room for at most most
// entries, and entries for the file's blocks from first up to end. It ends on
// any input: because the entries must ascend within these bounds, and nodes
// below the root must not be empty, a block that occurs twice in a tree is an
// error.
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

// leaf reads one entry of a leaf.
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

// child reads the node in a block of the disk and verifies its checksum.
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
