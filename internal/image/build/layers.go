package build

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/banger-vm/banger/internal/image/layer"
	"github.com/banger-vm/banger/internal/image/pull"
	"github.com/banger-vm/banger/internal/image/tree"
)

// parallelLayers is how many layers are read at a time: one for each core,
// since the longest layer should have a core to itself all the time; two at
// the least, for the network; few enough to bound memory.
func parallelLayers() int { return min(max(2, runtime.GOMAXPROCS(0)), 8) }

// unpacked is a layer whose table and bodies lie in the scratch folder.
type unpacked struct {
	layer  pull.Layer
	info   layer.Info
	bodies spool
	table  *os.File
	file   *os.File // of the bodies, nil where they lie in the disk
}

// spool holds the bodies of a layer.
type spool interface {
	io.ReaderAt
	io.WriterAt
}

// bySize returns the indexes of layers, the largest as stored first.
func bySize(layers []pull.Layer) []int {
	order := make([]int, len(layers))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(layers[b].Size(), layers[a].Size()) })
	return order
}

// unpackAll reads every layer into a table and a spool. Large layers begin
// first, since the longest one decides how long all take. Where inDisk is not
// nil, the largest layer as stored has its bodies there.
func unpackAll(
	ctx context.Context, layers []pull.Layer, cache *layerCache, inDisk spool, scratch string, o Options,
) ([]*unpacked, error) {
	out := make([]*unpacked, len(layers))
	limits := o.limits()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelLayers())
	for n, i := range bySize(layers) {
		u := &unpacked{layer: layers[i]}
		if n == 0 {
			u.bodies = inDisk
		}
		out[i] = u
		group.Go(func() error {
			meter := &meter{report: o.report, last: Event{
				Step: StepLayer, Layer: i + 1, Layers: len(layers), Digest: u.layer.Digest(), Total: max(u.layer.Size(), 0),
			}}
			found, err := cache.load(u)
			if err != nil {
				return u.named(err)
			}
			if found {
				meter.last.Text = "cached"
				meter.finish()
				return u.named(limits.Bytes.Take(u.info.StreamBytes))
			}
			if err := u.create(scratch, strconv.Itoa(i)); err != nil {
				return err
			}
			if err := u.unpack(ctx, limits, meter); err != nil {
				return err
			}
			return cache.keep(u)
		})
	}
	return out, group.Wait()
}

func (u *unpacked) create(scratch, name string) (err error) {
	if u.bodies == nil {
		if u.file, err = os.Create(filepath.Join(scratch, "spool-"+name)); err != nil {
			return err
		}
		u.bodies = u.file
	}
	u.table, err = os.Create(filepath.Join(scratch, "table-"+name))
	return err
}

func (u *unpacked) unpack(ctx context.Context, limits layer.Limits, m *meter) error {
	r, err := u.layer.Open(ctx)
	if err != nil {
		return err
	}
	m.r = r
	u.info, err = layer.Unpack(ctx, m, u.bodies, u.table, layer.Options{DiffID: u.layer.DiffID(), Limits: limits})
	if err = errors.Join(err, r.Close()); err != nil {
		return u.named(err)
	}
	m.finish()
	return nil
}

// named says which layer err is of, unless it says so itself.
func (u *unpacked) named(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*pull.LayerError](err); ok {
		return err
	}
	if u.layer.Digest() == "" {
		return err
	}
	return fmt.Errorf("layer %s: %w", u.layer.Digest(), err)
}

func closeAll(layers []*unpacked) error {
	var errs []error
	for _, u := range layers {
		for _, f := range []*os.File{u.file, u.table} {
			if f != nil {
				errs = append(errs, f.Close())
			}
		}
	}
	return errors.Join(errs...)
}

// mergeAll applies the tables, oldest layer first.
func mergeAll(ctx context.Context, layers []*unpacked, created tree.Time, o Options) (*tree.Tree, error) {
	m := tree.NewMerger(tree.Options{
		Scoped: o.Scoped, Created: created, MaxInodes: o.MaxInodes, MaxDepth: o.MaxDepth,
	})
	for _, u := range layers {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := m.NextLayer(); err != nil {
			return nil, err
		}
		if err := mergeOne(m, u); err != nil {
			return nil, u.named(err)
		}
	}
	tree := m.Tree()
	o.report(Event{Step: StepMerge, Done: int64(tree.NumInodes()), Finished: true})
	return tree, nil
}

func mergeOne(m *tree.Merger, u *unpacked) error {
	return eachEntry(u.table, nil, m.Add)
}

// eachEntry reads a table from its beginning. Once it is known to be whole,
// info is filled in; either of info and do may be nil.
func eachEntry(f *os.File, info *layer.Info, do func(*tree.Entry) error) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	table, err := layer.OpenTable(f)
	if err != nil {
		return err
	}
	var e tree.Entry
	for {
		err := table.Next(&e)
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && do != nil {
			err = do(&e)
		}
		if err != nil {
			return err
		}
	}
	if info != nil {
		*info = table.Info()
	}
	return nil
}

// meter reports how far a reader is, not more often than people can see.
type meter struct {
	r      io.Reader
	report func(Event)
	last   Event
	at     time.Time
}

const meterEvery = 50 * time.Millisecond

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.last.Done += int64(n)
	if now := time.Now(); now.Sub(m.at) >= meterEvery {
		m.at = now
		m.report(m.last)
	}
	return n, err
}

func (m *meter) finish() {
	m.last.Finished = true
	m.report(m.last)
}
