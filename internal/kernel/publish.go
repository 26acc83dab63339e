package kernel

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/banger-vm/banger/internal/base/atomicfile"
	"github.com/banger-vm/banger/internal/base/named"
	"github.com/banger-vm/banger/internal/base/publish"
	"github.com/banger-vm/banger/internal/kernel/compression"
)

// Publish moves the kernel that b has built into the store under b.Names. If
// the store has the same kernel with all its files and force is not set,
// Publish adds the names to that kernel instead and returns it with added
// false. Either way the kernel takes its names from the kernels that had them.
func (s *Store) Publish(ctx context.Context, b *Builder, force bool) (k *Kernel, added bool, err error) {
	err = s.locked(ctx, func() error {
		kernels, _, err := s.List()
		if err != nil {
			return err
		}
		k = &b.Kernel
		if i := slices.IndexFunc(kernels, func(o *Kernel) bool { return o.ID == k.ID }); i >= 0 {
			present := kernels[i]
			present.Names = union(present.Names, k.Names)
			if !force && present.checkFiles() == nil {
				k = present
				if err := k.writeManifest(); err != nil {
					return err
				}
				return named.TakeNames(kernels, k, (*Kernel).writeManifest)
			}
			k.Names = present.Names
		}
		if err := k.writeManifest(); err != nil {
			return err
		}
		dir := filepath.Join(s.dir, k.ID.Hex())
		if err := publish.Folder(k.dir, dir); err != nil {
			return fmt.Errorf("publish kernel: %w", err)
		}
		k.dir, added = dir, true
		return named.TakeNames(kernels, k, (*Kernel).writeManifest)
	})
	return k, added, err
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

// writeManifest writes the manifest into the kernel's folder. It returns an
// error if the manifest is larger than List would read.
func (k *Kernel) writeManifest() error {
	data, err := json.MarshalIndent(&k.Manifest, "", "  ")
	if err != nil {
		return fmt.Errorf("encode manifest: %w", err)
	}
	if len(data) >= maxManifest { // a newline follows
		return fmt.Errorf("write manifest of kernel %s: %w", k.ID.Short(), &compression.SizeError{Limit: maxManifest})
	}
	return atomicfile.Write(filepath.Join(k.dir, manifestFile), append(data, '\n'), 0o600)
}

// checkFiles returns an error if a file of the kernel is missing or has another
// size than the manifest. It does not read the content.
func (k *Kernel) checkFiles() error {
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
