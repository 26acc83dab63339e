package source

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/image/build"
	"github.com/banger-vm/banger/internal/image/tree"
)

// A fetcher gets the files of one source as trees in a scratch folder.
type fetcher struct {
	scratch string
	options Options
	origin  string
	release string // that the source or the options ask for; "" for any
	trees   []*diskTree
	record  *record // of a bundle; nil for other sources
}

func (f *fetcher) close() {
	for _, t := range f.trees {
		t.close()
	}
}

// fetch adds the trees of the source and sets the origin.
func (f *fetcher) fetch(ctx context.Context, src source) error {
	f.origin, f.release = src.text, f.options.Release
	if err := f.fetchKind(ctx, src); err != nil {
		return err
	}
	if f.record != nil && f.record.Origin != "" {
		f.origin = f.record.Origin
	}
	return nil
}

func (f *fetcher) fetchKind(ctx context.Context, src source) error {
	switch src.kind {
	case kindHost:
		return f.fetchHost(ctx, src.rest)
	case kindFiles:
		return f.fetchFiles(ctx, f.options.Files)
	case kindApt:
		return f.fetchApt(ctx, src.rest)
	case kindDeb:
		return f.fetchDebs(ctx, src.files())
	case kindBundle:
		return f.fetchBundle(ctx, src.rest)
	}
	return f.fetchImage(ctx, src.rest)
}

// fetchImage adds an image that contains a kernel. The image may be a bundle.
func (f *fetcher) fetchImage(ctx context.Context, source string) error {
	t, err := f.add(ctx, source, f.options.Build)
	if err != nil {
		return err
	}
	inner, err := t.inner(ctx, "kernel.tar", f.scratch, f.localOptions())
	if err != nil {
		return err
	}
	if inner != nil {
		f.trees = append(f.trees, inner)
	}
	f.record, err = t.record()
	return err
}

// add adds the tree of a source of package build.
func (f *fetcher) add(ctx context.Context, source string, o build.Options) (*diskTree, error) {
	t, err := convertTree(ctx, source, f.scratch, o)
	if err != nil {
		return nil, err
	}
	f.trees = append(f.trees, t)
	return t, nil
}

// localOptions returns the options for archives in the scratch folder. They
// need no cache and report no progress.
func (f *fetcher) localOptions() build.Options {
	o := f.options.Build
	o.Report = nil
	o.Pull.CacheDir = f.scratch
	o.Paths = tree.Strict // Debian packages name paths relative to the root
	return o
}

// selectKernels returns the kernels of the wanted release, or of the only
// release in the trees. A bzImage comes first, because every boot loader reads
// it.
func (f *fetcher) selectKernels(ctx context.Context) ([]candidate, error) {
	var all []candidate
	for _, t := range f.trees {
		kernels, err := t.kernels(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, kernels...)
	}
	var releases []string
	for _, c := range all {
		if !slices.Contains(releases, c.info.release) {
			releases = append(releases, c.info.release)
		}
	}
	slices.Sort(releases)
	want := f.release
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
	all = slices.DeleteFunc(all, func(c candidate) bool { return c.info.release != want })
	slices.SortStableFunc(all, func(a, b candidate) int { return strings.Compare(b.info.format, a.info.format) })
	if arch := all[0].info.arch; arch != runtime.GOARCH {
		f.options.report("kernel %s is for %s, this host is %s", want, arch, runtime.GOARCH)
	}
	return all, nil
}

// A SeveralError reports that a source has kernels of several releases.
type SeveralError struct{ Releases []string }

func (e *SeveralError) Error() string {
	return "several kernels in it: " + strings.Join(e.Releases, ", ")
}
