package kernel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/base/atomicfile"
	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/base/publish"
	"github.com/banger-vm/banger/internal/image/store"
)

const (
	maxManifest = 4 << 20 // bytes
	minPrefix   = 4       // digits of an ID that name a kernel at the least
)

// ErrNotFound says that no kernel has the name or ID asked for.
var ErrNotFound = errors.New("no such kernel")

// An AmbiguousError says that an ID prefix fits several kernels.
type AmbiguousError struct {
	Ref     string
	Kernels []*Kernel
}

func (e *AmbiguousError) Error() string {
	var ids []string
	for _, k := range e.Kernels {
		ids = append(ids, k.ID.Short())
	}
	return fmt.Sprintf("kernel %s: prefix of %d kernels (%s)", e.Ref, len(e.Kernels), strings.Join(ids, ", "))
}

// A Store holds the kernels in a data folder. Its methods may be called by
// several processes at once.
type Store struct {
	data *store.Store // whose lock is the folder's
	dir  string
}

// Open returns the store in the data folder root, which is made if need be.
func Open(root string) (*Store, error) {
	data, err := store.Open(root)
	if err != nil {
		return nil, err
	}
	s := &Store{data: data, dir: filepath.Join(root, "kernels")}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("open data folder: %w", err)
	}
	return s, nil
}

// List returns the kernels, newest first. One whose manifest cannot be read
// is left out and told of in damaged; the rest of the store works without it.
func (s *Store) List() (kernels []*Kernel, damaged []error, err error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, nil, fmt.Errorf("list kernels: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		k, err := readKernel(filepath.Join(s.dir, e.Name()))
		switch {
		case errors.Is(err, fs.ErrNotExist): // removed by another process just now
		case err != nil:
			damaged = append(damaged, err)
		default:
			kernels = append(kernels, k)
		}
	}
	slices.SortFunc(kernels, func(a, b *Kernel) int {
		if c := b.Added.Compare(a.Added); c != 0 {
			return c
		}
		return strings.Compare(string(a.ID), string(b.ID))
	})
	store.DropDuplicateNames(kernels, func(k *Kernel) *[]string { return &k.Names })
	return kernels, damaged, nil
}

func readKernel(dir string) (*Kernel, error) {
	path := filepath.Join(dir, manifestFile)
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := readBounded(f, maxManifest)
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", path, err)
	}
	k := &Kernel{dir: dir}
	if err := json.Unmarshal(data, &k.Manifest); err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", path, err)
	}
	if err := k.check(filepath.Base(dir)); err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", path, err)
	}
	return k, nil
}

// Find returns the kernel that ref names: one of its names, its ID, a prefix
// of the ID's hexadecimal digits, or its release where that is clear. The
// errors are ErrNotFound and *AmbiguousError. Where a manifest is damaged, a
// kernel that is not found may be the one it was of: that is another error.
func (s *Store) Find(ref string) (*Kernel, error) {
	kernels, damaged, err := s.List()
	if err != nil {
		return nil, err
	}
	k, err := find(kernels, ref)
	return k, blame(err, ref, damaged)
}

// blame returns err, or in place of ErrNotFound what may be why.
func blame(err error, ref string, damaged []error) error {
	if len(damaged) == 0 || !errors.Is(err, ErrNotFound) {
		return err
	}
	return fmt.Errorf("kernel %s: not among those that can be read (kernel rm with a damaged one's full ID, its folder's name, removes it): %w",
		ref, errors.Join(damaged...))
}

func find(kernels []*Kernel, ref string) (*Kernel, error) {
	for _, k := range kernels {
		if slices.Contains(k.Names, ref) {
			return k, nil
		}
	}
	prefix := strings.TrimPrefix(ref, "sha256:")
	var found []*Kernel
	for _, k := range kernels {
		if k.Release == ref || len(prefix) >= minPrefix && strings.HasPrefix(k.ID.Hex(), prefix) {
			found = append(found, k)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("kernel %s: %w", ref, ErrNotFound)
	case 1:
		return found[0], nil
	}
	return nil, &AmbiguousError{Ref: ref, Kernels: found}
}

// Remove takes the name ref from its kernel. One that loses its last name, or
// that ref means in another way, is deleted. A kernel that ref means by its ID
// or release while it has several names is deleted with force only. One whose
// manifest is damaged has no names: its full ID deletes it.
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
				return s.discard(dir)
			}
		}
		if err != nil {
			return blame(err, ref, damaged)
		}
		if slices.Contains(k.Names, ref) && len(k.Names) > 1 {
			k.Names = slices.DeleteFunc(k.Names, func(n string) bool { return n == ref })
			return k.write()
		}
		if len(k.Names) > 1 && !force {
			return fmt.Errorf("kernel %s: has %d names, --force removes them all", ref, len(k.Names))
		}
		deleted = true
		return s.discard(k.dir)
	})
	return k, deleted, err
}

// fullID returns the ID that ref is in full, or "".
func fullID(ref string) digest.Digest {
	hexadecimal := strings.TrimPrefix(ref, "sha256:")
	if len(hexadecimal) != 64 || strings.Trim(hexadecimal, "0123456789abcdef") != "" {
		return ""
	}
	return digest.Digest("sha256:" + hexadecimal)
}

// discard removes a folder of the store.
func (s *Store) discard(dir string) error {
	if err := publish.RemoveFolder(dir); err != nil {
		return fmt.Errorf("remove kernel: %w", err)
	}
	return nil
}

// put publishes the folder of k, which is whole and on disk, with its names.
// Where the same kernel is there already, and whole, it gets the names
// instead, and fresh is false.
func (s *Store) put(ctx context.Context, k *Kernel, force bool) (published *Kernel, fresh bool, err error) {
	err = s.locked(ctx, func() error {
		kernels, _, err := s.List()
		if err != nil {
			return err
		}
		dir := filepath.Join(s.dir, k.ID.Hex())
		at := slices.IndexFunc(kernels, func(o *Kernel) bool { return o.ID == k.ID })
		names := k.Names
		if at >= 0 {
			names = union(kernels[at].Names, names)
		}
		if at >= 0 && !force && kernels[at].whole() == nil {
			published = kernels[at]
			published.Names = names
			// A name is taken from the others only once it is written here.
			if err := published.write(); err != nil {
				return err
			}
			return s.takeNames(kernels, published)
		}
		k.Names = names
		if err := k.write(); err != nil {
			return err
		}
		if err := publish.Folder(k.dir, dir); err != nil {
			return fmt.Errorf("publish kernel: %w", err)
		}
		k.dir = dir
		published, fresh = k, true
		return s.takeNames(kernels, published)
	})
	return published, fresh, err
}

// takeNames removes the names of k from the other kernels.
func (s *Store) takeNames(kernels []*Kernel, k *Kernel) error {
	for _, other := range kernels {
		if other.ID == k.ID {
			continue
		}
		before := len(other.Names)
		other.Names = slices.DeleteFunc(other.Names, func(n string) bool { return slices.Contains(k.Names, n) })
		if len(other.Names) != before {
			if err := other.write(); err != nil {
				return err
			}
		}
	}
	return nil
}

func union(a, b []string) []string {
	out := slices.Clone(a)
	for _, s := range b {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

func (k *Kernel) write() error {
	data, err := json.MarshalIndent(&k.Manifest, "", "  ")
	if err != nil {
		return fmt.Errorf("encode manifest: %w", err)
	}
	if len(data) >= maxManifest { // with its newline: what is written must be readable
		return fmt.Errorf("write manifest of kernel %s: %w", k.ID.Short(), &SizeError{maxManifest})
	}
	return atomicfile.Write(filepath.Join(k.dir, manifestFile), append(data, '\n'), 0o600)
}

// whole returns what is wrong with the files of a kernel, by a quick look.
func (k *Kernel) whole() error {
	for name, f := range k.Files {
		info, err := os.Lstat(filepath.Join(k.dir, name))
		if err != nil {
			return fmt.Errorf("kernel %s: %w", k.ShownName(), err)
		}
		if !info.Mode().IsRegular() || info.Size() != f.Size {
			return fmt.Errorf("kernel %s: %s has %d bytes, want %d", k.ShownName(), name, info.Size(), f.Size)
		}
	}
	return nil
}

// locked runs do while no other process changes the data folder.
func (s *Store) locked(ctx context.Context, do func() error) error {
	unlock, err := s.data.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return do()
}

// Sweep removes what killed commands left.
func (s *Store) Sweep(ctx context.Context) error {
	return s.locked(ctx, func() error { return publish.Sweep(s.dir) })
}
