package source

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/banger-vm/banger/internal/base/sparse"
	"github.com/banger-vm/banger/internal/image/build"
	"github.com/banger-vm/banger/internal/kernel"
)

// Options are the settings of a pull. The zero value is valid except that
// Build.Pull.CacheDir must be set.
type Options struct {
	Catalog string        // the user's catalog file; "" for none
	Files   Files         // replace the source if Files.Kernel is set
	Release string        // selects a kernel if the source has several
	Force   bool          // replace a kernel that the store has already
	Build   build.Options // for sources that are images

	Report func(string) // receives one-line progress messages; may be nil
}

func (o *Options) report(format string, args ...any) {
	if o.Report != nil {
		o.Report(fmt.Sprintf(format, args...))
	}
}

// Pull gets the kernel wanted, an entry of the catalog or a source, and
// publishes it in the store s under name. If name is "", Pull uses the name of
// the catalog's entry, or else the kernel's release. If the store has the same
// kernel already, Pull only adds the name and returns added false.
func Pull(ctx context.Context, s *kernel.Store, wanted, name string, o Options) (k *kernel.Kernel, added bool, err error) {
	if err := o.Files.check(); err != nil {
		return nil, false, err
	}
	if name != "" && !kernel.IsName(name) {
		return nil, false, fmt.Errorf("name %.80q: want letters, digits, '.', '_', '+' and '-'", name)
	}
	if err := s.Sweep(ctx); err != nil {
		return nil, false, err
	}
	entry := Entry{Sources: []string{wanted}}
	if o.Files.Kernel == "" {
		catalog, err := Catalog(o.Catalog)
		if err != nil {
			return nil, false, err
		}
		if i := slices.IndexFunc(catalog, func(e Entry) bool { return e.Name == wanted }); i >= 0 {
			entry = catalog[i]
			if name == "" {
				name = entry.Name
			}
		}
	}
	var failed []error
	for i, text := range entry.Sources {
		k, added, err = pullSource(ctx, s, text, name, entry.SHA256, o)
		if err == nil || ctx.Err() != nil {
			return k, added, err
		}
		failed = append(failed, err)
		if i < len(entry.Sources)-1 {
			o.report("%v; trying %s", err, entry.Sources[i+1])
		}
	}
	if len(failed) == 1 {
		return nil, false, failed[0]
	}
	return nil, false, fmt.Errorf("kernel %s: none of its sources will do: %w", wanted, errors.Join(failed...))
}

// Check returns an error if wanted is neither an entry of the catalog, to which the file
// catalog belongs, nor the text of a source.
func Check(catalog, wanted string) error {
	entries, err := Catalog(catalog)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(entries, func(e Entry) bool { return e.Name == wanted }) {
		return nil
	}
	_, err = parseSource(wanted)
	return err
}

// pullSource is Pull for one source. If sha256 is not "", it is the digest of
// the file that the source names.
func pullSource(
	ctx context.Context, s *kernel.Store, text, name, sha256 string, o Options,
) (k *kernel.Kernel, added bool, err error) {
	src := source{text: kindFiles, kind: kindFiles}
	if o.Files.Kernel == "" {
		if src, err = parseSource(text); err != nil {
			return nil, false, err
		}
	}
	scratch, err := s.NewScratch()
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, scratch.Remove()) }()
	if sha256 != "" {
		if err := verifyFile(ctx, src.files()[0], sha256); err != nil {
			return nil, false, err
		}
	}
	f := &fetcher{scratch: scratch.Path, options: o}
	defer f.close()
	if err := f.fetch(ctx, src); err != nil {
		return nil, false, fmt.Errorf("kernel from %s: %w", src.text, err)
	}
	b, err := f.assemble(ctx)
	if err != nil {
		return nil, false, fmt.Errorf("kernel from %s: %w", src.text, err)
	}
	if name == "" {
		name = b.Release
	}
	b.Names, b.Origin = []string{name}, f.origin
	b.Added = time.Now().UTC().Truncate(time.Second)
	return s.Publish(ctx, b, o.Force)
}

// verifyFile returns an error if the SHA-256 of a file is not want, the digits
// in the catalog.
func verifyFile(ctx context.Context, name, want string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	got, err := sparse.Digest(ctx, f)
	if err != nil {
		return err
	}
	if got.Hex() != want {
		return fmt.Errorf("%s: its SHA-256 is %s, the catalog has %s", name, got.Hex(), want)
	}
	return nil
}
