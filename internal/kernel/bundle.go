package kernel

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/base/publish"
)

// recordFile is the file of a bundle that has its record. A bundle is a tree
// like that of a package: boot/vmlinuz-RELEASE, boot/config-RELEASE and
// lib/modules/RELEASE, so that other tools can use it too.
const recordFile = "banger-kernel.json"

const maxRecord = 1 << 20 // bytes

// record is what a bundle says of itself.
type record struct {
	Schema  int           `json:"schema"`
	ID      digest.Digest `json:"id"`
	Release string        `json:"release"`
	Arch    string        `json:"arch"`
	Origin  string        `json:"origin"`
	Kernel  digest.Digest `json:"kernel"`
	Config  digest.Digest `json:"config,omitempty"`
	Modules digest.Digest `json:"modules,omitempty"` // of modules as a tar; see moduleSet.writeTar
}

func newRecord(m *Manifest) *record {
	r := &record{
		Schema: Schema, ID: m.ID, Release: m.Release, Arch: m.Arch, Origin: m.Origin,
		Kernel: m.Files[kernelFile].Digest, Config: m.Files[configFile].Digest,
	}
	if m.Loadable != nil {
		r.Modules = m.Loadable.Digest
	}
	return r
}

// verify compares the record with what was made of the bundle.
func (r *record) verify(m *Manifest) error {
	got := newRecord(m)
	for _, d := range []struct {
		what      string
		got, want digest.Digest
	}{
		{"kernel", got.Kernel, r.Kernel},
		{"configuration", got.Config, r.Config},
		{"modules", got.Modules, r.Modules},
		{"whole", got.ID, r.ID},
	} {
		if d.got != d.want {
			return fmt.Errorf("bundle: digest of its %s is %s, its record has %s", d.what, d.got, d.want)
		}
	}
	return nil
}

// record returns the record of the bundle that the tree is, or nil.
func (t *diskTree) record() (*record, error) {
	e := t.find(recordFile)
	if e == nil {
		return nil, nil
	}
	data, err := t.read(e, maxRecord)
	if err != nil {
		return nil, err
	}
	r := new(record)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("%s: %w", recordFile, err)
	}
	if r.Schema != Schema {
		return nil, fmt.Errorf("%s: schema version %d, this banger knows %d", recordFile, r.Schema, Schema)
	}
	return r, nil
}

// bundle takes a bundle in a tar file, plain or compressed.
func (g *gathering) bundle(ctx context.Context, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	plain := filepath.Join(g.scratch, "bundle.tar")
	if err := writeExpanded(ctx, plain, f); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	t, err := g.add(ctx, "tar:"+plain, g.local())
	if err = errors.Join(err, os.Remove(plain)); err != nil {
		return err
	}
	if g.record, err = t.record(); err != nil {
		return err
	}
	if g.record == nil {
		return fmt.Errorf("%s: no %s in it: not a bundle", file, recordFile)
	}
	return nil
}

// The forms of an export.
const (
	FormatTar = "tar" // a bundle
	FormatOCI = "oci" // a bundle as the only layer of an image, in an oci-archive
)

// WriteBundle writes k as a bundle to w. The same kernel gives the same bytes.
func (k *Kernel) WriteBundle(ctx context.Context, w io.Writer) error {
	if err := k.writeBundle(ctx, w); err != nil {
		return fmt.Errorf("export kernel %s: %w", k.ShownName(), err)
	}
	return nil
}

func (k *Kernel) writeBundle(ctx context.Context, out io.Writer) error {
	buf := bufio.NewWriterSize(out, 1<<20)
	w := tar.NewWriter(buf)
	data, err := json.MarshalIndent(newRecord(&k.Manifest), "", "  ")
	if err != nil {
		return err
	}
	if err := writeTarFile(w, recordFile, append(data, '\n')); err != nil {
		return err
	}
	for _, f := range []struct{ from, to string }{
		{k.Path(kernelFile), "boot/vmlinuz-" + k.Release}, {k.Path(configFile), "boot/config-" + k.Release},
	} {
		if f.from == "" {
			continue
		}
		data, err := readFile(f.from, maxKernel)
		if err != nil {
			return err
		}
		if sum := k.Files[filepath.Base(f.from)].Digest; sumOf(data) != sum {
			return fmt.Errorf("%s: its digest is not %s", f.from, sum)
		}
		if err := writeTarFile(w, f.to, data); err != nil {
			return err
		}
	}
	if disk := k.ModulesDisk(); disk != "" {
		if err := k.copyModules(ctx, w, disk); err != nil {
			return err
		}
	}
	return errors.Join(w.Close(), buf.Flush())
}

func (k *Kernel) copyModules(ctx context.Context, w *tar.Writer, disk string) error {
	t, err := openTree(disk)
	if err != nil {
		return err
	}
	defer t.close()
	set, err := collectModules(ctx, []*diskTree{t}, k.Release)
	if err != nil || set == nil {
		return errors.Join(errors.New("no modules on their disk"), err)
	}
	// Hashed first: what is written cannot be taken back.
	sum := &summer{hash: sha256.New()}
	hashed := tar.NewWriter(sum)
	if err := errors.Join(set.writeTar(ctx, hashed), hashed.Close()); err != nil {
		return err
	}
	if k.Loadable == nil || sum.digest() != k.Loadable.Digest {
		return fmt.Errorf("%s: digest of its modules is %s, not the manifest's", disk, sum.digest())
	}
	return set.writeTar(ctx, w)
}

// Export writes k to the file path in the given form, in place of what was
// there.
func Export(ctx context.Context, k *Kernel, path, format string) error {
	write := k.WriteBundle
	switch format {
	case FormatTar:
	case FormatOCI:
		write = k.writeOCI
	default:
		return fmt.Errorf("export format %q: want %s or %s", format, FormatTar, FormatOCI)
	}
	return publish.File(path, func(f *os.File) error { return write(ctx, f) })
}
