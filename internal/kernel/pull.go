package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/banger-vm/banger/internal/base/publish"
	"github.com/banger-vm/banger/internal/base/sparse"
	"github.com/banger-vm/banger/internal/image/build"
)

// Options are what a pull can be told. The zero value but for Build.Pull.CacheDir
// will do.
type Options struct {
	Catalog string        // the user's catalog file; "" for none
	Files   Files         // in place of a source, where Kernel is set
	Release string        // which kernel, where the source has several
	Force   bool          // make it anew where it is there already
	Build   build.Options // how sources that are images are got and read

	Report func(string) // one-line remarks on what is being done; may be nil
}

func (o *Options) report(format string, args ...any) {
	if o.Report != nil {
		o.Report(fmt.Sprintf(format, args...))
	}
}

// Pull gets the kernel that what means, an entry of the catalog or a source,
// into the store under the given name; "" is the catalog's name, or the
// kernel's release. When the store has the same already only the name is
// noted and fresh is false.
func (s *Store) Pull(ctx context.Context, what, name string, o Options) (k *Kernel, fresh bool, err error) {
	if err := o.Files.check(); err != nil {
		return nil, false, err
	}
	if name != "" && !IsName(name) {
		return nil, false, fmt.Errorf("name %.80q: want letters, digits, '.', '_', '+' and '-'", name)
	}
	if err := s.Sweep(ctx); err != nil {
		return nil, false, err
	}
	entry := Entry{Sources: []string{what}}
	if o.Files.Kernel == "" {
		catalog, err := Catalog(o.Catalog)
		if err != nil {
			return nil, false, err
		}
		if i := slices.IndexFunc(catalog, func(e Entry) bool { return e.Name == what }); i >= 0 {
			entry = catalog[i]
			if name == "" {
				name = entry.Name
			}
		}
	}
	var failed []error
	for i, text := range entry.Sources {
		k, fresh, err = s.pullSource(ctx, text, name, entry.SHA256, o)
		if err == nil || ctx.Err() != nil {
			return k, fresh, err
		}
		failed = append(failed, err)
		if i < len(entry.Sources)-1 {
			o.report("%v; trying %s", err, entry.Sources[i+1])
		}
	}
	if len(failed) == 1 {
		return nil, false, failed[0]
	}
	return nil, false, fmt.Errorf("kernel %s: none of its sources will do: %w", what, errors.Join(failed...))
}

func (s *Store) pullSource(ctx context.Context, text, name, sha256 string, o Options) (k *Kernel, fresh bool, err error) {
	src := source{text: kindFiles, kind: kindFiles}
	if o.Files.Kernel == "" {
		if src, err = parseSource(text); err != nil {
			return nil, false, err
		}
	}
	scratch, err := publish.NewScratch(s.dir)
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, scratch.Remove()) }()
	if sha256 != "" {
		if err := verifyFile(ctx, src.files()[0], sha256); err != nil {
			return nil, false, err
		}
	}
	g := &gathering{scratch: scratch.Path, o: o}
	defer g.close()
	if err := g.gather(ctx, src); err != nil {
		return nil, false, fmt.Errorf("kernel from %s: %w", src.text, err)
	}
	if g.record != nil && g.record.Origin != "" {
		g.origin = g.record.Origin
	}
	built, err := g.assemble(ctx)
	if err != nil {
		return nil, false, fmt.Errorf("kernel from %s: %w", src.text, err)
	}
	if name == "" {
		name = built.Release
	}
	built.Names, built.Origin = []string{name}, g.origin
	built.Added = time.Now().UTC().Truncate(time.Second)
	return s.put(ctx, built, o.Force)
}

// verifyFile compares the digest of a file with the catalog's.
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

// gathering is what a source is made of, in a scratch folder.
type gathering struct {
	scratch string
	o       Options
	origin  string
	release string // where the source says which
	trees   []*diskTree
	record  *record // of a bundle
}

func (g *gathering) close() {
	for _, t := range g.trees {
		t.close()
	}
}

// gather makes trees of the source.
func (g *gathering) gather(ctx context.Context, src source) error {
	g.origin, g.release = src.text, g.o.Release
	switch src.kind {
	case kindHost:
		return g.host(ctx, src.rest)
	case kindFiles:
		return g.files(ctx, g.o.Files)
	case kindApt:
		return g.apt(ctx, src.rest)
	case kindDeb:
		return g.debs(ctx, src.files())
	case kindBundle:
		return g.bundle(ctx, src.rest)
	}
	return g.image(ctx, src.rest)
}

// image takes an image with a kernel in it.
func (g *gathering) image(ctx context.Context, source string) error {
	t, err := g.add(ctx, source, g.o.Build)
	if err != nil {
		return err
	}
	inner, err := t.inner(ctx, "kernel.tar", g.scratch, g.local())
	if err != nil {
		return err
	}
	if inner != nil {
		g.trees = append(g.trees, inner)
	}
	g.record, err = t.record()
	return err
}

// add makes a tree of what package rootfs takes.
func (g *gathering) add(ctx context.Context, source string, o build.Options) (*diskTree, error) {
	t, err := convertTree(ctx, source, g.scratch, o)
	if err != nil {
		return nil, err
	}
	g.trees = append(g.trees, t)
	return t, nil
}

// local returns the options for archives that are made here or were checked
// before: they need no cache, and no progress is shown of them.
func (g *gathering) local() build.Options {
	o := g.o.Build
	o.Report = nil
	o.Pull.CacheDir = g.scratch
	return o
}

// choose returns the kernels of the one release that the trees have, or that
// was asked for.
func (g *gathering) choose(ctx context.Context) ([]found, error) {
	var all []found
	for _, t := range g.trees {
		kernels, err := t.kernels(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, kernels...)
	}
	var releases []string
	for _, f := range all {
		if !slices.Contains(releases, f.image.release) {
			releases = append(releases, f.image.release)
		}
	}
	slices.Sort(releases)
	want := g.release
	switch {
	case len(releases) == 0:
		return nil, errors.New("no kernel in it: want /boot/vmlinuz-RELEASE, /boot/vmlinux or /kernel")
	case want == "" && len(releases) > 1:
		return nil, &SeveralError{releases}
	case want == "":
		want = releases[0]
	case !slices.Contains(releases, want):
		return nil, fmt.Errorf("no kernel %s in it, but %s", want, strings.Join(releases, ", "))
	}
	all = slices.DeleteFunc(all, func(f found) bool { return f.image.release != want })
	// The bzImage comes first: it is what every loader takes.
	slices.SortStableFunc(all, func(a, b found) int { return strings.Compare(b.image.format, a.image.format) })
	if arch := all[0].image.arch; arch != runtime.GOARCH {
		g.o.report("kernel %s is for %s, this host is %s", want, arch, runtime.GOARCH)
	}
	return all, nil
}

// A SeveralError says that a source has kernels of several releases.
type SeveralError struct{ Releases []string }

func (e *SeveralError) Error() string {
	return "several kernels in it: " + strings.Join(e.Releases, ", ")
}
