package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/banger-vm/banger/internal/base/atomicfile"
	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/base/sparse"
)

// A Builder writes the folder of a kernel that is not yet in a store. The
// caller sets the fields of the manifest that describe the kernel; the methods
// set Files, Loadable and ID.
type Builder struct{ Kernel }

// NewBuilder makes the folder dir, which must lie in a scratch folder of the
// store that will publish it.
func NewBuilder(dir string) (*Builder, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	return &Builder{Kernel{dir: dir, Manifest: Manifest{Schema: Schema, Files: map[string]File{}}}}, nil
}

// AddFile writes a file of the kernel's folder and syncs it. Every user may
// read it: a kernel is no secret, and QEMU may run as another user.
func (b *Builder) AddFile(name string, data []byte) error {
	f, err := os.OpenFile(filepath.Join(b.dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	b.Files[name] = File{Size: int64(len(data)), Digest: digest.FromBytes(data)}
	return nil
}

// AddModules records the modules disk, which the caller has written as
// ModulesFile in the kernel's folder, and writes their index beside it.
func (b *Builder) AddModules(ctx context.Context, m Loadable, x *Index) error {
	b.Loadable = &m
	f, err := os.Open(filepath.Join(b.dir, ModulesFile))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	sum, err := sparse.Digest(ctx, f)
	if err != nil {
		return err
	}
	b.Files[ModulesFile] = File{Size: info.Size(), Digest: sum}
	data, err := x.encode(maxIndex)
	if err != nil {
		return fmt.Errorf("encode index of modules: %w", err)
	}
	return b.AddFile(indexFile, data)
}

// Finish computes the kernel's ID and syncs its folder.
func (b *Builder) Finish() (err error) {
	if b.ID, err = b.contentID(); err != nil {
		return err
	}
	return atomicfile.SyncDir(b.dir)
}
