package source

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"path"
	"time"

	"github.com/banger-vm/banger/internal/image/tree"
	"github.com/banger-vm/banger/internal/kernel/compression"
)

// writeTar writes the modules as the tar whose digest is in the manifest. Its
// entries are sorted and have only names, contents and symlink targets, so the
// same modules from different sources give the same bytes.
func (s *moduleSet) writeTar(ctx context.Context, w *tar.Writer) error {
	prefix := "lib/modules/" + s.release
	for _, dir := range []string{"lib", "lib/modules", prefix} {
		if err := w.WriteHeader(tarHeader(dir, tar.TypeDir, 0)); err != nil {
			return err
		}
	}
	for i := range s.files {
		if err := ctx.Err(); err != nil {
			return err
		}
		f := &s.files[i]
		if err := f.writeTar(ctx, w, path.Join(prefix, f.path)); err != nil {
			return fmt.Errorf("%s: %w", f.path, err)
		}
	}
	return nil
}

func (f *moduleFile) writeTar(ctx context.Context, w *tar.Writer, name string) error {
	if f.tree == nil {
		return writeTarFile(w, name, f.data)
	}
	switch f.from.in.Type {
	case tree.Directory:
		return w.WriteHeader(tarHeader(name, tar.TypeDir, 0))
	case tree.Symlink:
		target, err := f.tree.fs.Readlink(f.from.in)
		if err != nil {
			return err
		}
		return w.WriteHeader(symlinkHeader(name, target))
	}
	data, err := f.tree.fs.Data(f.from.in)
	if err != nil {
		return err
	}
	if err := w.WriteHeader(tarHeader(name, tar.TypeReg, data.Size())); err != nil {
		return err
	}
	_, err = io.Copy(w, compression.ContextReader(ctx, io.NewSectionReader(data, 0, data.Size())))
	return err
}

func writeTarFile(w *tar.Writer, name string, data []byte) error {
	if err := w.WriteHeader(tarHeader(name, tar.TypeReg, int64(len(data)))); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

// tarHeader returns a header without owner and time, for a regular file or a
// directory.
func tarHeader(name string, kind byte, size int64) *tar.Header {
	h := &tar.Header{Name: name, Typeflag: kind, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0)}
	if kind == tar.TypeDir {
		h.Name, h.Mode = name+"/", 0o755
	}
	return h
}

func symlinkHeader(name, target string) *tar.Header {
	h := tarHeader(name, tar.TypeSymlink, 0)
	h.Linkname, h.Mode = target, 0o777
	return h
}
