// Package store keeps images on disk: one ext4 file and one JSON record for
// each, in the data folder of the user.
//
//	images/<hex>.json     the record of an image; what is not recorded is not there
//	disks/<file>          the disks that records name
//	tmp/.banger-<random>  scratch folders of running commands
//	lock                  held while records and disks change
//
// A record is published after its disk and removed before it, each in one
// atomic step, so that whatever is killed, every record has its disk; a disk
// without a record, like a scratch folder without an owner, is a leftover
// that the next command sweeps. The package does not know what is in a disk.
package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/base/atomicfile"
	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/base/flock"
	"github.com/banger-vm/banger/internal/base/jsonfile"
	"github.com/banger-vm/banger/internal/base/publish"
)

// maxRecord bounds the size in bytes of a record that is read.
const maxRecord = 16 << 20

// A Store is a data folder. Its methods may be called by several processes
// at once.
type Store struct {
	root string
}

// Open returns the store in the folder root, which is made if need be.
func Open(root string) (*Store, error) {
	for _, dir := range []string{"images", "disks", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			return nil, fmt.Errorf("open data folder: %w", err)
		}
	}
	return &Store{root: root}, nil
}

// DiskPath returns the host path of an image's disk.
func (s *Store) DiskPath(img *Image) string { return filepath.Join(s.root, "disks", img.Disk.File) }

// HasDisk reports whether the disk of img is there and has its size. One that
// a person or another program has deleted can be built again.
func (s *Store) HasDisk(img *Image) bool {
	info, err := os.Stat(s.DiskPath(img))
	return err == nil && info.Size() == img.Disk.Size
}

func (s *Store) recordPath(id digest.Digest) string {
	return filepath.Join(s.root, "images", id.Hex()+".json")
}

// Scratch creates a scratch folder on the store's file system.
func (s *Store) Scratch() (*publish.Scratch, error) {
	return publish.NewScratch(filepath.Join(s.root, "tmp"))
}

// Lock waits until no other process changes the store, and returns the
// function that lets the next one in.
func (s *Store) Lock(ctx context.Context) (unlock func(), err error) {
	unlock, err = flock.LockFile(ctx, filepath.Join(s.root, "lock"))
	if err != nil {
		return nil, fmt.Errorf("lock data folder: %w", err)
	}
	return unlock, nil
}

// Images returns the records, newest first. A record that cannot be read is
// left out and told of in damaged; the rest of the store works without it.
func (s *Store) Images() (images []*Image, damaged []error, err error) {
	dir := filepath.Join(s.root, "images")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("list images: %w", err)
	}
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".json" || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		img, err := readRecord(filepath.Join(dir, e.Name()))
		switch {
		case errors.Is(err, fs.ErrNotExist): // removed by another process just now
		case err != nil:
			damaged = append(damaged, err)
		default:
			images = append(images, img)
		}
	}
	slices.SortFunc(images, func(a, b *Image) int {
		if c := b.Pulled.Compare(a.Pulled); c != 0 {
			return c
		}
		return strings.Compare(string(a.ID), string(b.ID))
	})
	SettleNames(images, func(img *Image) *[]string { return &img.Names })
	return images, damaged, nil
}

// SettleNames gives a name that two records claim to the newer one. That
// happens when a process dies between the two writes that move a name.
func SettleNames[T any](newestFirst []T, names func(T) *[]string) {
	taken := map[string]bool{}
	for _, record := range newestFirst {
		list := names(record)
		*list = slices.DeleteFunc(*list, func(name string) bool {
			defer func() { taken[name] = true }()
			return taken[name]
		})
	}
}

func readRecord(path string) (*Image, error) {
	img := new(Image)
	err := jsonfile.Read(path, maxRecord, img)
	if err == nil {
		err = img.check(filepath.Base(path))
	}
	if err != nil {
		return nil, fmt.Errorf("read image record %s: %w", path, err)
	}
	return img, nil
}

// Find returns the image that ref names: one of its names, its ID, or a
// prefix of the ID's hexadecimal digits. canonical is ref as names are
// recorded; it is tried when ref itself is no name. The errors are
// ErrNotFound and *AmbiguousError.
func (s *Store) Find(ref, canonical string) (*Image, error) {
	images, _, err := s.Images()
	if err != nil {
		return nil, err
	}
	for _, name := range []string{ref, canonical} {
		for _, img := range images {
			if slices.Contains(img.Names, name) {
				return img, nil
			}
		}
	}
	prefix := strings.TrimPrefix(ref, "sha256:")
	var found []*Image
	for _, img := range images {
		if len(prefix) >= minPrefix && strings.HasPrefix(img.ID.Hex(), prefix) {
			found = append(found, img)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("image %s: %w", ref, ErrNotFound)
	case 1:
		return found[0], nil
	}
	return nil, &AmbiguousError{Ref: ref, Images: found}
}

// Put publishes img with its disk, the file at disk, which must be on the
// store's file system (a Scratch of the store is) and written through to the
// device. A record of the same ID is replaced; names of img are taken from
// the images that had them. The caller holds the Lock.
func (s *Store) Put(img *Image, disk string) error {
	if err := atomicfile.Rename(disk, s.DiskPath(img)); err != nil {
		return fmt.Errorf("publish disk: %w", err)
	}
	old, err := readRecord(s.recordPath(img.ID))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		old = nil // damaged: the new record takes its place
	}
	if err := s.Update(img); err != nil {
		return err
	}
	if old != nil && old.Disk.File != img.Disk.File {
		return s.removeDisk(old)
	}
	return nil
}

// Update rewrites the record of img and takes its names from other images.
// The caller holds the Lock.
func (s *Store) Update(img *Image) error {
	img.Schema = Schema
	if err := s.write(img); err != nil {
		return err
	}
	images, _, err := s.Images()
	if err != nil {
		return err
	}
	for _, other := range images {
		if other.ID == img.ID {
			continue
		}
		before := len(other.Names)
		other.Names = slices.DeleteFunc(other.Names, func(n string) bool { return slices.Contains(img.Names, n) })
		if len(other.Names) != before {
			if err := s.write(other); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Store) write(img *Image) error {
	return jsonfile.Write(s.recordPath(img.ID), img)
}

// Remove deletes img, its record first. The caller holds the Lock.
func (s *Store) Remove(img *Image) error {
	if err := os.Remove(s.recordPath(img.ID)); err != nil {
		return fmt.Errorf("remove image: %w", err)
	}
	if err := atomicfile.SyncDir(filepath.Join(s.root, "images")); err != nil {
		return fmt.Errorf("remove image: %w", err)
	}
	return s.removeDisk(img)
}

func (s *Store) removeDisk(img *Image) error {
	if err := os.Remove(s.DiskPath(img)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove disk: %w", err)
	}
	return nil
}

// Sweep removes what killed commands left: scratch folders without an owner,
// temporaries of records, disks that no record names. Nothing that a running
// command uses is touched. While a record is damaged no disk is removed,
// since it may be the damaged record's. The caller holds the Lock.
func (s *Store) Sweep() error {
	errs := []error{publish.Sweep(filepath.Join(s.root, "tmp"))}
	temporaries, err := filepath.Glob(filepath.Join(s.root, "images", ".*.tmp-*"))
	errs = append(errs, err)
	images, damaged, err := s.Images()
	errs = append(errs, err)
	named := map[string]bool{}
	for _, img := range images {
		named[img.Disk.File] = true
	}
	if err == nil && len(damaged) == 0 {
		disks, err := os.ReadDir(filepath.Join(s.root, "disks"))
		errs = append(errs, err)
		for _, d := range disks {
			if !named[d.Name()] {
				temporaries = append(temporaries, filepath.Join(s.root, "disks", d.Name()))
			}
		}
	}
	for _, path := range temporaries {
		errs = append(errs, os.Remove(path))
	}
	return errors.Join(errs...)
}
