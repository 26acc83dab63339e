package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/kernel"
)

// recordFile is the file of a bundle that holds its record. The rest of a
// bundle is a tree like that of a package, which other tools can use too:
// boot/vmlinuz-RELEASE, boot/config-RELEASE and lib/modules/RELEASE.
const recordFile = "banger-kernel.json"

const maxRecord = 1 << 20 // bytes

// record is the content of recordFile. Its version is kernel.Schema.
type record struct {
	Schema  int           `json:"schema"`
	ID      digest.Digest `json:"id"`
	Release string        `json:"release"`
	Arch    string        `json:"arch"`
	Origin  string        `json:"origin"`
	Kernel  digest.Digest `json:"kernel"`
	Config  digest.Digest `json:"config,omitempty"`
	Modules digest.Digest `json:"modules,omitempty"` // of the tar that moduleSet.writeTar writes
}

func newRecord(m *kernel.Manifest) *record {
	r := &record{
		Schema: kernel.Schema, ID: m.ID, Release: m.Release, Arch: m.Arch, Origin: m.Origin,
		Kernel: m.Files[kernel.KernelFile].Digest, Config: m.Files[kernel.ConfigFile].Digest,
	}
	if m.Loadable != nil {
		r.Modules = m.Loadable.Digest
	}
	return r
}

// verify returns an error if the digests in the record are not those of the
// kernel m, which was built from the bundle.
func (r *record) verify(m *kernel.Manifest) error {
	got := newRecord(m)
	for _, d := range []struct {
		part      string
		got, want digest.Digest
	}{
		{"kernel", got.Kernel, r.Kernel},
		{"configuration", got.Config, r.Config},
		{"modules", got.Modules, r.Modules},
		{"whole", got.ID, r.ID},
	} {
		if d.got != d.want {
			return fmt.Errorf("bundle: digest of its %s is %s, its record has %s", d.part, d.got, d.want)
		}
	}
	return nil
}

// record returns the bundle's record, or nil if the tree is not a bundle.
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
	if r.Schema != kernel.Schema {
		return nil, fmt.Errorf("%s: schema version %d, this banger knows %d", recordFile, r.Schema, kernel.Schema)
	}
	return r, nil
}

// fetchBundle adds a bundle in a tar file, which may be compressed.
func (f *fetcher) fetchBundle(ctx context.Context, file string) error {
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	plain := filepath.Join(f.scratch, "bundle.tar")
	if err := decompressFile(ctx, plain, in); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	t, err := f.add(ctx, "tar:"+plain, f.localOptions())
	if err = errors.Join(err, os.Remove(plain)); err != nil {
		return err
	}
	if f.record, err = t.record(); err != nil {
		return err
	}
	if f.record == nil {
		return fmt.Errorf("%s: no %s in it: not a bundle", file, recordFile)
	}
	return nil
}
