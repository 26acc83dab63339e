// Package verify holds a disk against the layers that it was made of.
//
// It reads the layers again and replays them in its own way: the standard
// library's tar reader and a tree of maps, plain and slow beside packages
// layer and tree, whose readers and merge it must not use. A mistake there
// would otherwise be made twice and found never. The disk is read by package
// ext4's reader, which trusts nothing on it.
//
// It changes nothing and opens nothing but what it is given.
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
)

// Options say how the disk was built. The zero value stands for strict paths
// and an image created at the Unix epoch.
type Options struct {
	Created   tree.Time // of the image: the time of directories that no layer describes
	Scoped    bool      // paths were resolved inside the image, not refused
	MaxInodes int       // that layers may make; 0: DefaultMaxInodes
	MaxBytes  int64     // that layers may unpack to; 0: DefaultMaxBytes
	Workers   int       // layers read and files hashed at a time; 0: one for each core
}

// Difference is one fact that is not on the disk as the layers have it.
type Difference struct {
	Path  string `json:"path"` // in the image, relative to its root; the root is "."
	Field string `json:"field"`
	Want  string `json:"want"`
	Got   string `json:"got"`
}

// The fields of a Difference. That of an extended attribute is FieldXattr, a
// space and the attribute's name.
const (
	FieldName    = "name" // whether the path exists at all
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

// String gives the difference as one line.
func (d Difference) String() string {
	return fmt.Sprintf("%q: %s: want %s, got %s", d.Path, d.Field, d.Want, d.Got)
}

// Report is what came out. Its memory grows with the differences.
type Report struct {
	Differences []Difference `json:"differences"` // by path and field
	Problems    []string     `json:"problems"`    // of the disk's structure
	Inodes      int          `json:"inodes"`      // of the image
	Bytes       int64        `json:"bytes"`       // of the image's files, holes included
}

// OK reports whether the disk is as it should be.
func (r *Report) OK() bool { return len(r.Differences) == 0 && len(r.Problems) == 0 }

// Verify compares every inode of a disk of size bytes with what the layers,
// oldest first, make together, and checks the disk's structure. The error is
// about the layers or about ctx: whatever is wrong with the disk is in the
// report.
func Verify(ctx context.Context, layers []Layer, disk io.ReaderAt, size int64, o Options) (*Report, error) {
	o.setDefaults()
	report := &Report{Differences: []Difference{}, Problems: []string{}}
	fs, openErr := ext4.Open(disk, size)
	var root *node
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		root, err = expect(groupCtx, layers, o)
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
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
}

// expect reads layers in parallel and replays them in order.
func expect(ctx context.Context, layers []Layer, o Options) (*node, error) {
	var left atomic.Int64
	left.Store(o.MaxBytes)
	entries := make([][]entry, len(layers))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(o.Workers)
	for i, l := range layers {
		group.Go(func() (err error) {
			entries[i], err = l.read(groupCtx, &left)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	r := newReplay(o.Created, o.Scoped, o.MaxInodes)
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

// measure counts inodes and the bytes of files, each inode once.
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
