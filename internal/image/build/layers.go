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

// parallelLayers returns the number of layers to read concurrently. It is the number
// of cores, because the largest layer should always have a core of its own. The
// minimum of two is for the network, and the maximum of eight limits memory.
func parallelLayers() int { return min(max(2, runtime.GOMAXPROCS(0)), 8) }

// unpacked is a layer with its table and its bodies in files.
type unpacked struct {
	layer  pull.Layer
	info   layer.Info
	bodies spool
	table  *os.File
	file   *os.File // of the bodies, nil if they are in the disk
}

// spool holds the bodies of a layer.
type spool interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
}

// bySize returns the indexes of layers in the order of their size as stored, the
// largest first.
func bySize(layers []pull.Layer) []int {
	order := make([]int, len(layers))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(layers[b].Size(), layers[a].Size()) })
	return order
}

// unpackAll unpacks every layer into a table and a spool. It starts with the largest
// layer, because that one determines the total time. If inDisk is not nil, the
// largest layer as stored unpacks into it.
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
			progress := &progressReader{report: o.report, last: Event{
				Step: StepLayer, Layer: i + 1, Layers: len(layers), Digest: u.layer.Digest(), Total: max(u.layer.Size(), 0),
			}}
			found, err := cache.load(u)
			if err != nil {
				return u.withLayerName(err)
			}
			if found {
				progress.last.Text = "cached"
				progress.finish()
				return u.withLayerName(limits.Bytes.Take(u.info.StreamBytes))
			}
			if err := u.create(scratch, strconv.Itoa(i)); err != nil {
				return err
			}
			if err := u.unpack(ctx, limits, progress); err != nil {
				return err
			}
			return cache.add(u)
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

// unpack unpacks the layer. It starts again if a server sent wrong bytes and another
// request may bring the right ones; package pull bounds the number of requests.
func (u *unpacked) unpack(ctx context.Context, limits layer.Limits, m *progressReader) error {
	for {
		err := u.unpackOnce(ctx, limits, m)
		if err == nil {
			m.finish()
			return nil
		}
		if !pull.MayRecover(err) || ctx.Err() != nil {
			return u.withLayerName(err)
		}
		if err := u.reset(); err != nil {
			return err
		}
		m.last.Done = 0
	}
}

func (u *unpacked) unpackOnce(ctx context.Context, limits layer.Limits, m *progressReader) error {
	r, err := u.layer.Open(ctx)
	if err != nil {
		return err
	}
	m.r = r
	u.info, err = layer.Unpack(ctx, m, u.bodies, u.table, layer.Options{DiffID: u.layer.DiffID(), Limits: limits})
	if _, isLimit := errors.AsType[*tree.LimitError](err); err != nil && !isLimit {
		// Only the rest shows whether a server or the image's author is at fault.
		if _, rest := io.Copy(io.Discard, r); pull.IsCorrupt(rest) {
			err = rest
		}
	}
	return errors.Join(err, r.Close())
}

// reset removes the data of an attempt to unpack the layer.
func (u *unpacked) reset() error {
	if err := u.bodies.Truncate(0); err != nil {
		return err
	}
	if err := u.table.Truncate(0); err != nil {
		return err
	}
	_, err := u.table.Seek(0, io.SeekStart)
	return err
}

// withLayerName adds the layer's digest to err, unless err has it or the layer has
// none.
func (u *unpacked) withLayerName(err error) error {
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

// warnings returns the warnings about the layer with its digest, if it has one.
func (u *unpacked) warnings() (out []string) {
	for _, w := range u.info.Warnings {
		if d := u.layer.Digest(); d != "" {
			w = fmt.Sprintf("layer %s: %s", d, w)
		}
		out = append(out, w)
	}
	return out
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

// mergeAll merges the tables of the layers, the oldest first.
func mergeAll(ctx context.Context, layers []*unpacked, created tree.Time, o Options) (*tree.Tree, error) {
	m := tree.NewMerger(tree.Options{
		Paths: o.Paths, Created: created, MaxInodes: o.MaxInodes, MaxDepth: o.MaxDepth,
	})
	for _, u := range layers {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := m.NextLayer(); err != nil {
			return nil, err
		}
		if err := eachEntry(u.table, nil, m.Add); err != nil {
			return nil, u.withLayerName(err)
		}
		u.info.Warnings = append(u.info.Warnings, m.LayerWarnings()...)
	}
	tree := m.Tree()
	o.report(Event{Step: StepMerge, Done: int64(tree.NumInodes()), Finished: true})
	return tree, nil
}

// eachEntry reads a table from its beginning and calls do for each entry. If the
// table is complete, eachEntry sets *info. Both info and do may be nil.
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

// progressReader reports the bytes read from r, at most once in reportInterval.
type progressReader struct {
	r      io.Reader
	report func(Event)
	last   Event
	at     time.Time
}

const reportInterval = 50 * time.Millisecond

func (m *progressReader) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.last.Done += int64(n)
	if now := time.Now(); now.Sub(m.at) >= reportInterval {
		m.at = now
		m.report(m.last)
	}
	return n, err
}

func (m *progressReader) finish() {
	m.last.Finished = true
	m.report(m.last)
}
