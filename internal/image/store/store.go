// Package store stores images in the user's data folder. Each image has an ext4
// file and a JSON record.
//
//	images/<hex>.json     the record of an image
//	disks/<file>          the disks that records name
//	tmp/.banger-<random>  scratch folders of running commands
//	lock                  locked while records and disks change
//
// The package publishes a record after its disk, and removes a record before its
// disk. Each of these steps is atomic. So every record has its disk, even if the
// process is killed between two steps. The next command sweeps disks without a
// record and scratch folders of dead processes. The package does not read the
// content of disks.
package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/banger-vm/banger/internal/base/atomicfile"
	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/base/flock"
	"github.com/banger-vm/banger/internal/base/jsonfile"
	"github.com/banger-vm/banger/internal/base/named"
	"github.com/banger-vm/banger/internal/base/publish"
)

// maxRecord is the maximum size in bytes of a record.
const maxRecord = 16 << 20

// A Store is a data folder. Several processes may call its methods concurrently.
type Store struct {
	root string
}

// Open returns the store in the folder root, and creates the folder if it is missing.
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

// HasDisk reports whether the disk of img exists and has the recorded size. Pull
// builds a missing disk again, because a user or a program may have deleted it.
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

// Lock waits for the store's lock and takes it. The returned function releases it.
func (s *Store) Lock(ctx context.Context) (unlock func(), err error) {
	unlock, err = flock.LockFile(ctx, filepath.Join(s.root, "lock"))
	if err != nil {
		return nil, fmt.Errorf("lock data folder: %w", err)
	}
	return unlock, nil
}

// Images returns the records, the newest first. If a record cannot be read, Images
// omits it and adds the error to damaged, because the other images still work.
func (s *Store) Images() (images []*Image, damaged []error, err error) {
	dir := filepath.Join(s.root, "images")
	isRecord := func(e fs.DirEntry) bool { return filepath.Ext(e.Name()) == ".json" }
	images, damaged, err = named.List(dir, isRecord, readRecord)
	if err != nil {
		return nil, nil, fmt.Errorf("list images: %w", err)
	}
	return images, damaged, nil
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

// Find returns the image that ref names. ref is one of the image's names, its ID, or
// a prefix of the ID's hexadecimal digits. canonical are the canonical forms of ref;
// Find looks them up in order if ref is not a name in the store. Find returns
// ErrNotFound if there is no such image, and *AmbiguousError if a prefix matches
// several.
func (s *Store) Find(ref string, canonical ...string) (*Image, error) {
	images, _, err := s.Images()
	if err != nil {
		return nil, err
	}
	for _, name := range append([]string{ref}, canonical...) {
		if img, ok := named.ByName(images, name); ok {
			return img, nil
		}
	}
	found := slices.DeleteFunc(slices.Clone(images), func(img *Image) bool { return !named.HasPrefix(img, ref) })
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("image %s: %w", ref, ErrNotFound)
	case 1:
		return found[0], nil
	}
	return nil, &AmbiguousError{Ref: ref, Images: found}
}

// Put publishes img with its disk. disk is the path of a file that is synced to the
// device and on the store's file system, such as a file in a Scratch of the store.
// Put replaces a record with the same ID, and removes the names of img from other
// images. The caller holds the Lock.
func (s *Store) Put(img *Image, disk string) error {
	if err := atomicfile.Rename(disk, s.DiskPath(img)); err != nil {
		return fmt.Errorf("publish disk: %w", err)
	}
	old, oldErr := readRecord(s.recordPath(img.ID))
	if err := s.Update(img); err != nil {
		return err
	}
	// If the old record was missing or damaged, its disk is not known.
	if oldErr == nil && old.Disk.File != img.Disk.File {
		return s.removeDisk(old)
	}
	return nil
}

// Update writes the record of img, and removes its names from other images. The
// caller holds the Lock.
func (s *Store) Update(img *Image) error {
	img.Schema = Schema
	if err := s.write(img); err != nil {
		return err
	}
	images, _, err := s.Images()
	if err != nil {
		return err
	}
	return named.TakeNames(images, img, s.write)
}

func (s *Store) write(img *Image) error {
	return jsonfile.Write(s.recordPath(img.ID), img)
}

// Remove removes the record and then the disk of img. The caller holds the Lock.
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

// Sweep removes the files of killed commands: their scratch folders, temporary files
// of records, and disks without a record. It removes no file of a running command.
// If a record is damaged, Sweep removes no disk, because the disk may belong to that
// record. The caller holds the Lock.
func (s *Store) Sweep() error {
	errs := []error{publish.Sweep(filepath.Join(s.root, "tmp"))}
	leftovers, err := filepath.Glob(filepath.Join(s.root, "images", ".*.tmp-*"))
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
				leftovers = append(leftovers, filepath.Join(s.root, "disks", d.Name()))
			}
		}
	}
	for _, path := range leftovers {
		errs = append(errs, os.Remove(path))
	}
	return errors.Join(errs...)
}
