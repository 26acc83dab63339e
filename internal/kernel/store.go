package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/base/flock"
	"github.com/banger-vm/banger/internal/base/jsonfile"
	"github.com/banger-vm/banger/internal/base/named"
	"github.com/banger-vm/banger/internal/base/publish"
)

const maxManifest = 4 << 20 // bytes

// ErrNotFound reports that no kernel has the given name or ID.
var ErrNotFound = errors.New("no such kernel")

// An AmbiguousError reports that several kernels match an ID prefix or a
// release.
type AmbiguousError struct {
	Ref     string
	Kernels []*Kernel
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("kernel %s: prefix of %d kernels (%s)", e.Ref, len(e.Kernels), named.ShortIDs(e.Kernels))
}

// A Store holds the kernels in a data folder. Several processes may use one at
// the same time.
type Store struct {
	dir  string
	lock string // a file, locked while kernels or images of the data folder change
}

// Open returns the store in the data folder root. It makes the folder if it
// does not exist.
func Open(root string) (*Store, error) {
	s := &Store{dir: filepath.Join(root, "kernels"), lock: filepath.Join(root, "lock")}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("open data folder: %w", err)
	}
	return s, nil
}

// List returns the kernels, newest first. It leaves out a kernel whose manifest
// it cannot read, and returns the reason in damaged.
func (s *Store) List() (kernels []*Kernel, damaged []error, err error) {
	kernels, damaged, err = named.List(s.dir, fs.DirEntry.IsDir, readKernel)
	if err != nil {
		return nil, nil, fmt.Errorf("list kernels: %w", err)
	}
	return kernels, damaged, nil
}

func readKernel(dir string) (*Kernel, error) {
	path := filepath.Join(dir, manifestFile)
	k := &Kernel{dir: dir}
	err := jsonfile.Read(path, maxManifest, &k.Manifest)
	if err == nil {
		err = k.check(filepath.Base(dir))
	}
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", path, err)
	}
	return k, nil
}

// Find returns the kernel that ref names: by one of its names, its ID, a prefix
// of the ID's hexadecimal digits, or its release if no other kernel has the
// same. It returns ErrNotFound or an *AmbiguousError; if it finds no kernel but
// a manifest is damaged, which may be that of the kernel, it returns another
// error.
func (s *Store) Find(ref string) (*Kernel, error) {
	kernels, damaged, err := s.List()
	if err != nil {
		return nil, err
	}
	k, err := find(kernels, ref)
	return k, addDamaged(err, ref, damaged)
}

// addDamaged replaces ErrNotFound by an error that lists the damaged manifests,
// if there are any. It returns other errors as they are.
func addDamaged(err error, ref string, damaged []error) error {
	if len(damaged) == 0 || !errors.Is(err, ErrNotFound) {
		return err
	}
	return fmt.Errorf("kernel %s: not among those that can be read (kernel rm with a damaged one's full ID, its folder's name, removes it): %w",
		ref, errors.Join(damaged...))
}

func find(kernels []*Kernel, ref string) (*Kernel, error) {
	if k, ok := named.ByName(kernels, ref); ok {
		return k, nil
	}
	found := slices.DeleteFunc(slices.Clone(kernels), func(k *Kernel) bool { return k.Release != ref && !named.HasPrefix(k, ref) })
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("kernel %s: %w", ref, ErrNotFound)
	case 1:
		return found[0], nil
	}
	return nil, &AmbiguousError{Ref: ref, Kernels: found}
}

// Remove removes the name ref from its kernel, and deletes the kernel if it was
// the last one. If ref is an ID or a release, it deletes the kernel, unless that
// has several names and force is not set. If ref is the full ID of a kernel
// whose manifest is damaged, it deletes that kernel.
func (s *Store) Remove(ctx context.Context, ref string, force bool) (k *Kernel, deleted bool, err error) {
	err = s.locked(ctx, func() error {
		if err := publish.Sweep(s.dir); err != nil {
			return err
		}
		kernels, damaged, err := s.List()
		if err != nil {
			return err
		}
		k, err = find(kernels, ref)
		if id := fullID(ref); len(damaged) > 0 && id != "" && errors.Is(err, ErrNotFound) {
			dir := filepath.Join(s.dir, id.Hex())
			if _, statErr := os.Lstat(dir); statErr == nil {
				k, deleted = &Kernel{Manifest: Manifest{ID: id}, dir: dir}, true
				return discard(dir)
			}
		}
		if err != nil {
			return addDamaged(err, ref, damaged)
		}
		if slices.Contains(k.Names, ref) && len(k.Names) > 1 {
			k.Names = slices.DeleteFunc(k.Names, func(n string) bool { return n == ref })
			return k.writeManifest()
		}
		if len(k.Names) > 1 && !force {
			return fmt.Errorf("kernel %s: has %d names, --force removes them all", ref, len(k.Names))
		}
		deleted = true
		return discard(k.dir)
	})
	return k, deleted, err
}

// fullID returns the ID if ref is a complete one, else "".
func fullID(ref string) digest.Digest {
	hexadecimal := strings.TrimPrefix(ref, "sha256:")
	if len(hexadecimal) != 64 || strings.Trim(hexadecimal, "0123456789abcdef") != "" {
		return ""
	}
	return digest.Digest("sha256:" + hexadecimal)
}

// discard deletes a kernel's folder.
func discard(dir string) error {
	if err := publish.RemoveFolder(dir); err != nil {
		return fmt.Errorf("remove kernel: %w", err)
	}
	return nil
}

// locked calls do while it holds the data folder's lock, which excludes changes
// by other processes.
func (s *Store) locked(ctx context.Context, do func() error) error {
	unlock, err := flock.LockFile(ctx, s.lock)
	if err != nil {
		return fmt.Errorf("lock data folder: %w", err)
	}
	defer unlock()
	return do()
}

// NewScratch makes a scratch folder on the store's file system.
func (s *Store) NewScratch() (*publish.Scratch, error) { return publish.NewScratch(s.dir) }

// Sweep removes the scratch folders of commands that were killed.
func (s *Store) Sweep(ctx context.Context) error {
	return s.locked(ctx, func() error { return publish.Sweep(s.dir) })
}
