// Package build converts an image to a disk. It resolves the image, unpacks the
// layers in parallel, merges their tables, builds the file system and publishes
// it. The package only orders these steps; other packages implement them.
//
// All temporary files of a build are in one scratch folder beside its result. The
// last step moves the result to its name, atomically. So a build that fails or is
// interrupted leaves no files, and does not change an existing disk. If a build is
// killed, the next one in the same place removes its scratch folder.
package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/banger-vm/banger/internal/base/atomicfile"
	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/base/publish"
	"github.com/banger-vm/banger/internal/image/pull"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/image/tree"
)

// ErrExists means that a file with the name of the new disk exists.
var ErrExists = errors.New("file exists")

// Convert builds a disk of source as the file path. If the file exists, Convert
// returns ErrExists, or with o.Force replaces the file after the new disk is
// complete.
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

// checkTarget returns an error if path exists and must not be replaced: without
// force, or if it is not a regular file.
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

// Pull builds source as an image of the store. The image gets the given name, or
// the name of the source if name is "". If the store has the image with the
// options that o sets, Pull only adds the name, and fresh is false.
func Pull(ctx context.Context, s *store.Store, source, name string, o Options) (rec *store.Image, fresh bool, err error) {
	if err := withLock(ctx, s, s.Sweep); err != nil {
		return nil, false, err
	}
	img, err := resolve(ctx, source, o)
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, img.Close()) }()
	if name == "" && img.NameError != nil {
		return nil, false, fmt.Errorf("reading %s: %w", source, img.NameError)
	}
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
	rec = newRecord(img, name, res, o)
	return rec, true, withLock(ctx, s, func() error {
		if old, err := s.Find(string(rec.ID)); err == nil {
			rec.Names = addName(old.Names, name)
		}
		return s.Put(rec, res.disk)
	})
}

// reuse looks up the store's image with the digest of img and the options that o
// sets. It adds name to its names and returns it, or nil if there is none.
func reuse(ctx context.Context, s *store.Store, img *pull.Image, name string, o Options) (*store.Image, error) {
	if o.Force || img.Digest == "" {
		return nil, nil
	}
	var found *store.Image
	err := withLock(ctx, s, func() error {
		rec, err := s.Find(string(img.Digest))
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil || !o.matches(rec) {
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

// withLock runs do while it holds the lock of the store.
func withLock(ctx context.Context, s *store.Store, do func() error) error {
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

// build builds the disk of img in the folder scratch.
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
	if d.sharesExtents = cache != nil; !d.sharesExtents {
		inDisk = d.spool()
	}
	layers, err := unpackAll(ctx, img.Layers, cache, inDisk, scratch, o)
	defer func() { err = errors.Join(err, closeAll(layers)) }()
	if err != nil {
		return nil, withSourceName(img, err)
	}
	created := createdTime(img)
	tree, err := mergeAll(ctx, layers, created, o)
	if err != nil {
		return nil, withSourceName(img, err)
	}
	res, err = d.write(ctx, tree, layers, created)
	if err != nil {
		return nil, err
	}
	res.Warnings = append(slices.Clone(img.Warnings), res.Warnings...)
	res.Platform, res.ID = img.Platform, img.Digest
	if res.ID == "" { // the ID of a plain tar is the digest of its content
		res.ID = digest.Digest(layers[0].info.DiffID)
	}
	return res, nil
}

// withSourceName adds the source to an error of a plain tar. For other sources the
// error has the digest of the layer.
func withSourceName(img *pull.Image, err error) error {
	if img.Digest != "" {
		return err
	}
	return fmt.Errorf("reading %s: %w", img.Source, err)
}

// createdTime returns the time for inodes that are in no layer. It is the image's
// creation time, or the epoch if the image has none. It is never the current time,
// because the same image must give the same bytes.
func createdTime(img *pull.Image) tree.Time {
	c := img.Config.Created.Time
	if c.IsZero() {
		c = time.Unix(0, 0)
	}
	return tree.Time{Sec: c.Unix(), Nsec: uint32(c.Nanosecond())}
}
