package source

import (
	"archive/tar"
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/base/publish"
	"github.com/banger-vm/banger/internal/kernel"
)

// The formats of Export.
const (
	FormatTar = "tar" // a bundle
	FormatOCI = "oci" // an oci-archive with an image whose only layer is a bundle
)

// Export writes k to the file path in the given format. It replaces an existing
// file.
func Export(ctx context.Context, k *kernel.Kernel, path, format string) error {
	write := WriteBundle
	switch format {
	case FormatTar:
	case FormatOCI:
		write = writeOCI
	default:
		return fmt.Errorf("export format %q: want %s or %s", format, FormatTar, FormatOCI)
	}
	return publish.File(path, func(f *os.File) error { return write(ctx, f, k) })
}

// WriteBundle writes k as a bundle to w. The same kernel gives the same bytes.
func WriteBundle(ctx context.Context, w io.Writer, k *kernel.Kernel) error {
	if err := writeBundle(ctx, w, k); err != nil {
		return fmt.Errorf("export kernel %s: %w", k.ShownName(), err)
	}
	return nil
}

func writeBundle(ctx context.Context, out io.Writer, k *kernel.Kernel) error {
	buf := bufio.NewWriterSize(out, 1<<20)
	w := tar.NewWriter(buf)
	data, err := json.MarshalIndent(newRecord(&k.Manifest), "", "  ")
	if err != nil {
		return err
	}
	if err := writeTarFile(w, recordFile, append(data, '\n')); err != nil {
		return err
	}
	for _, f := range []struct{ name, to string }{
		{kernel.KernelFile, "boot/vmlinuz-" + k.Release}, {kernel.ConfigFile, "boot/config-" + k.Release},
	} {
		if err := copyFile(w, k, f.name, f.to); err != nil {
			return err
		}
	}
	if k.ModulesDisk() != "" {
		if err := copyModules(ctx, w, k); err != nil {
			return err
		}
	}
	return errors.Join(w.Close(), buf.Flush())
}

// copyFile writes a file of k to w, if k has it. It returns an error if the
// file's digest is not the manifest's.
func copyFile(w *tar.Writer, k *kernel.Kernel, name, to string) error {
	from := k.Path(name)
	if from == "" {
		return nil
	}
	data, err := readFile(from, maxKernel)
	if err != nil {
		return err
	}
	if want := k.Files[name].Digest; digest.FromBytes(data) != want {
		return fmt.Errorf("%s: its digest is not %s", from, want)
	}
	return writeTarFile(w, to, data)
}

// copyModules writes the modules of k to w. It reads them twice: it compares
// their digest with the manifest's before it writes, because w may be a pipe.
func copyModules(ctx context.Context, w *tar.Writer, k *kernel.Kernel) error {
	t, err := openTree(k.ModulesDisk())
	if err != nil {
		return err
	}
	defer t.close()
	set, err := collectModules(ctx, []*diskTree{t}, k.Release)
	if err != nil || set == nil {
		return errors.Join(errors.New("no modules on their disk"), err)
	}
	sum := newHashWriter()
	hashed := tar.NewWriter(sum)
	if err := errors.Join(set.writeTar(ctx, hashed), hashed.Close()); err != nil {
		return err
	}
	if k.Loadable == nil || sum.digest() != k.Loadable.Digest {
		return fmt.Errorf("%s: digest of its modules is %s, not the manifest's", k.ModulesDisk(), sum.digest())
	}
	return set.writeTar(ctx, w)
}
