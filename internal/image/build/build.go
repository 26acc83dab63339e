// Package build turns an image into a disk: resolve, unpack the layers in
// parallel, merge their tables, build the file system, publish. It is the
// order of the steps and nothing else; each step is a package of its own.
//
// What a build needs on the way lies in one scratch folder beside its result,
// and the result gets its name last, in one step. So a build that fails, is
// interrupted or is killed leaves nothing, and what was there before stays.
package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/banger-vm/banger/internal/base/atomicfile"
	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/base/publish"
	"github.com/banger-vm/banger/internal/image/pull"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/image/tree"
)

// ErrExists says that the file a disk was to become is there already.
var ErrExists = errors.New("file exists")

// Convert builds source into the file path. An existing file is replaced
// only with o.Force, and only when the new disk is whole.
func Convert(ctx context.Context, source, path string, o Options) (res *Result, err error) {
	if err := checkTarget(path, o.Force); err != nil {
		return nil, err
	}
	err = publish.InScratch(filepath.Dir(path), func(scratch string) error {
		res, err = convert(ctx, source, path, scratch, o)
		return err
	})
	return res, err
}

func convert(ctx context.Context, source, path, scratch string, o Options) (res *Result, err error) {
	img, err := resolve(ctx, source, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, img.Close()) }()
	res, err = build(ctx, img, scratch, o)
	if err != nil {
		return nil, err
	}
	if err := checkTarget(path, o.Force); err != nil {
		return nil, err
	}
	if err := atomicfile.Rename(res.disk, path); err != nil {
		return nil, fmt.Errorf("publish disk: %w", err)
	}
	return res, nil
}

// checkTarget refuses to put a disk in the place of something else.
func checkTarget(path string, force bool) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s: not a regular file, will not be replaced", path)
	case !force:
		return fmt.Errorf("%s: %w", path, ErrExists)
	}
	return nil
}

// Pull builds source into the store under the given name, or the source's
// own where name is empty. When the store has the image already, built as o
// asks for, only the name is noted and fresh is false.
func Pull(ctx context.Context, s *store.Store, source, name string, o Options) (rec *store.Image, fresh bool, err error) {
	if err := locked(ctx, s, s.Sweep); err != nil {
		return nil, false, err
	}
	img, err := resolve(ctx, source, o)
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, img.Close()) }()
	if name == "" {
		name = img.Name
	}
	if rec, err := reuse(ctx, s, img, name, o); rec != nil || err != nil {
		return rec, false, err
	}
	scratch, err := s.Scratch()
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, scratch.Remove()) }()
	res, err := build(ctx, img, scratch.Path, o)
	if err != nil {
		return nil, false, err
	}
	rec = record(img, name, res, o)
	return rec, true, locked(ctx, s, func() error {
		if old, err := s.Find(string(rec.ID), ""); err == nil {
			rec.Names = addName(old.Names, name)
		}
		return s.Put(rec, res.disk)
	})
}

// reuse returns the image of the store that img would become, with name
// added to its names, or nil when there is none.
func reuse(ctx context.Context, s *store.Store, img *pull.Image, name string, o Options) (*store.Image, error) {
	if o.Force || img.Digest == "" {
		return nil, nil
	}
	var found *store.Image
	err := locked(ctx, s, func() error {
		rec, err := s.Find(string(img.Digest), "")
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil || !o.fits(rec) {
			return err
		}
		if !s.HasDisk(rec) {
			return nil
		}
		found = rec
		names := addName(rec.Names, name)
		if len(names) == len(rec.Names) {
			return nil
		}
		rec.Names = names
		return s.Update(rec)
	})
	return found, err
}

// locked runs do while no other process changes the store.
func locked(ctx context.Context, s *store.Store, do func() error) error {
	unlock, err := s.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return do()
}

func resolve(ctx context.Context, source string, o Options) (*pull.Image, error) {
	o.report(Event{Step: StepResolve, Text: source})
	opts := o.Pull
	opts.Notice = func(text string) { o.report(Event{Step: StepNotice, Text: text}) }
	return pull.Resolve(ctx, source, opts)
}

// build makes the disk of img in the folder scratch.
func build(ctx context.Context, img *pull.Image, scratch string, o Options) (res *Result, err error) {
	d, err := newDisk(scratch, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	cache, err := openLayerCache(o.Pull.CacheDir, scratch)
	if err != nil {
		return nil, err
	}
	var inDisk spool
	if d.shares = cache != nil; !d.shares {
		inDisk = d.spool()
	}
	layers, err := unpackAll(ctx, img.Layers, cache, inDisk, scratch, o)
	defer func() { err = errors.Join(err, closeAll(layers)) }()
	if err != nil {
		return nil, ofSource(img, err)
	}
	created := createdTime(img)
	tree, err := mergeAll(ctx, layers, created, o)
	if err != nil {
		return nil, ofSource(img, err)
	}
	res, err = d.write(ctx, tree, layers, created)
	if err != nil {
		return nil, err
	}
	res.Platform, res.ID = img.Platform, img.Digest
	if res.ID == "" { // a plain tar is known by its content
		res.ID = digest.Digest(layers[0].info.DiffID)
	}
	return res, nil
}

// ofSource names a plain tar, whose layer has no digest that err could name.
func ofSource(img *pull.Image, err error) error {
	if img.Digest != "" {
		return err
	}
	return fmt.Errorf("reading %s: %w", img.Source, err)
}

// createdTime is the time that stands in for what no layer gives: the
// image's own, or the epoch, never the clock.
func createdTime(img *pull.Image) tree.Time {
	c := img.Config.Created.Time
	if c.IsZero() {
		c = time.Unix(0, 0)
	}
	return tree.Time{Sec: c.Unix(), Nsec: uint32(c.Nanosecond())}
}
