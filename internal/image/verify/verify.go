// Package verify compares a disk with the layers that it was built from.
//
// The package reads the layers again and replays them with code of its own:
// the standard library's tar reader and a tree of maps. It is simple, and
// slow in comparison with packages layer and tree. It must not use the tar
// reader of layer or the merge of tree, because a fault in shared code would
// go unnoticed. It reads the disk with packages ext4/read and ext4/check,
// which validate all data on it.
//
// The package writes nothing, and reads only the layers and the disk that the
// caller passes.
package verify

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/banger-vm/banger/internal/image/ext4/check"
	ext4 "github.com/banger-vm/banger/internal/image/ext4/read"
	"github.com/banger-vm/banger/internal/image/tree"
)

// Default limits of Options.
const (
	DefaultMaxInodes = 5_000_000
	DefaultMaxBytes  = 64 << 30
	DefaultMaxWindow = 512 << 20
)

// Options describe how the disk was built. The zero value is for rooted
// paths and an image created at the Unix epoch.
type Options struct {
	Created   tree.Time  // of the image: the time of directories that no layer describes
	Paths     tree.Paths // the rule of the build for unusual paths
	MaxInodes int        // limit on the inodes that the layers make; 0 is DefaultMaxInodes
	MaxWindow uint64     // limit on the window of a zstd layer; 0 is DefaultMaxWindow
	MaxBytes  int64      // limit on the unpacked layers; 0 is DefaultMaxBytes
	Workers   int        // number of layers to read, and of files to hash, in parallel; 0 is one per core
}

// Difference is one value on the disk that differs from the layers.
type Difference struct {
	Path  string `json:"path"` // in the image, relative to its root; the root is "."
	Field string `json:"field"`
	Want  string `json:"want"`
	Got   string `json:"got"`
}

// The fields of a Difference. The field of an extended attribute is FieldXattr,
// a space and the name of the attribute.
const (
	FieldName    = "name" // the path exists
	FieldInode   = "inode"
	FieldType    = "type"
	FieldMode    = "mode"
	FieldUID     = "uid"
	FieldGID     = "gid"
	FieldMtime   = "mtime"
	FieldSize    = "size"
	FieldContent = "content"
	FieldTarget  = "target"
	FieldDevice  = "device"
	FieldLinks   = "links"
	FieldXattr   = "xattr"
)

// String returns the difference as one line.
func (d Difference) String() string {
	return fmt.Sprintf("%q: %s: want %s, got %s", d.Path, d.Field, d.Want, d.Got)
}

// Report is the result of Verify. Its size has no limit: it grows with the
// number of differences.
type Report struct {
	Differences []Difference `json:"differences"` // by path and field
	Problems    []string     `json:"problems"`    // of the disk's structure
	Inodes      int          `json:"inodes"`      // of the image
	Bytes       int64        `json:"bytes"`       // of the image's files, holes included
}

// OK reports whether the disk matches the layers and has no problems.
func (r *Report) OK() bool { return len(r.Differences) == 0 && len(r.Problems) == 0 }

// Verify replays the layers, oldest first, compares every inode of the result
// with a disk of size bytes, and checks the structure of the disk. Its error
// is an error in the layers or that of ctx. The report has the faults of the
// disk.
func Verify(ctx context.Context, layers []Layer, disk io.ReaderAt, size int64, o Options) (*Report, error) {
	o.setDefaults()
	report := &Report{Differences: []Difference{}, Problems: []string{}}
	fs, openErr := ext4.Open(disk, size)
	var root *node
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		root, err = expectedTree(groupCtx, layers, o)
		return err
	})
	if openErr == nil {
		group.Go(func() (err error) {
			report.Problems, err = check.Metadata(groupCtx, fs)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	report.Inodes, report.Bytes = measure(root)
	if openErr != nil {
		report.Problems = append(report.Problems, openErr.Error())
		return report, nil
	}
	differences, err := compare(ctx, fs, root, o.Workers)
	if err != nil {
		return nil, err
	}
	report.Differences = append(report.Differences, differences...)
	slices.SortFunc(report.Differences, func(a, b Difference) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Want, b.Want), cmp.Compare(a.Got, b.Got))
	})
	return report, nil
}

func (o *Options) setDefaults() {
	if o.MaxInodes <= 0 {
		o.MaxInodes = DefaultMaxInodes
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.MaxWindow == 0 {
		o.MaxWindow = DefaultMaxWindow
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
}

// expectedTree reads the layers in parallel, replays them in order and returns
// the root of the tree.
func expectedTree(ctx context.Context, layers []Layer, o Options) (*node, error) {
	var left atomic.Int64
	left.Store(o.MaxBytes)
	windows := &windows{limit: o.MaxWindow}
	entries := make([][]entry, len(layers))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(o.Workers)
	for i, l := range layers {
		group.Go(func() (err error) {
			entries[i], err = l.read(groupCtx, &left, windows)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	r := newReplay(o.Created, o.Paths, o.MaxInodes)
	for i, l := range layers {
		r.nextLayer()
		for j := range entries[i] {
			e := &entries[i][j]
			if err := r.apply(e); err != nil {
				return nil, fmt.Errorf("layer %s: entry %q: %w", l.Digest, e.name, err)
			}
		}
		entries[i] = nil
	}
	return r.root, nil
}

// measure returns the number of inodes and the bytes of files. It counts each
// inode once.
func measure(root *node) (inodes int, bytes int64) {
	linked := map[*node]bool{}
	var count func(*node)
	count = func(n *node) {
		if n.links > 1 {
			if linked[n] {
				return
			}
			linked[n] = true
		}
		inodes++
		bytes += n.size
		for _, child := range n.names {
			count(child.node)
		}
	}
	count(root)
	return inodes, bytes
}
