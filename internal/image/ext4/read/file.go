package read

import (
	"fmt"
	"io"
	"sort"

	"github.com/banger-vm/banger/internal/image/tree"
)

// File gives access to the data of an inode. It is safe for concurrent use.
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

// Size returns the size of the file in bytes, holes included.
func (f *File) Size() int64 { return f.size }

// Runs returns the ranges of the file that hold data, in bytes. They ascend, do
// not touch each other and end within the file's size. The rest of the file is
// holes and allocated blocks that were never written.
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

// ReadAt implements io.ReaderAt. Holes read as zeros.
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

// readPart reads at most up to the end of the extent or hole at offset off.
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
