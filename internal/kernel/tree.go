package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/image/build"
	ext4 "github.com/banger-vm/banger/internal/image/ext4/read"
	"github.com/banger-vm/banger/internal/image/tree"
)

// A tree is what a source holds: a scratch disk, read file by file. Whatever
// the paths in it, they lead nowhere on the host.
type diskTree struct {
	disk    *os.File
	fs      *ext4.FS
	entries []treeEntry // sorted by path
}

type treeEntry struct {
	path string // relative to the root, clean
	in   *ext4.Inode
}

// maxEntries bounds how many files of a tree are looked at.
const maxEntries = 1 << 20

// convertTree turns source, in any form that package rootfs takes, into a
// tree whose disk lies in the folder scratch.
func convertTree(ctx context.Context, source, scratch string, o build.Options) (*diskTree, error) {
	f, err := os.CreateTemp(scratch, "tree-*")
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	o.Builder, o.Force = build.Native, true
	o.Size, o.Headroom, o.Label, o.UUID = 0, 0, "", ""
	if _, err := build.Convert(ctx, source, f.Name(), o); err != nil {
		return nil, err
	}
	return openTree(f.Name())
}

func openTree(disk string) (t *diskTree, err error) {
	f, err := os.Open(disk)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	t = &diskTree{disk: f}
	if t.fs, err = ext4.Open(f, info.Size()); err != nil {
		return nil, err
	}
	err = t.fs.Walk(func(name string, in *ext4.Inode) error {
		if len(t.entries) >= maxEntries {
			return fmt.Errorf("more than %d files", maxEntries)
		}
		t.entries = append(t.entries, treeEntry{name, in})
		return nil
	})
	slices.SortFunc(t.entries, func(a, b treeEntry) int { return strings.Compare(a.path, b.path) })
	return t, err
}

func (t *diskTree) close() { t.disk.Close() }

// find returns the regular file of that path, or nil.
func (t *diskTree) find(name string) *treeEntry {
	i, ok := slices.BinarySearchFunc(t.entries, name, func(e treeEntry, p string) int { return strings.Compare(e.path, p) })
	if !ok || t.entries[i].in.Type != tree.Regular {
		return nil
	}
	return &t.entries[i]
}

// read returns the content of a regular file.
func (t *diskTree) read(e *treeEntry, limit int64) ([]byte, error) {
	f, err := t.fs.Data(e.in)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", e.path, err)
	}
	if f.Size() > limit {
		return nil, fmt.Errorf("read %s: %w", e.path, &SizeError{limit})
	}
	data := make([]byte, f.Size())
	if _, err := f.ReadAt(data, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read %s: %w", e.path, err)
	}
	return data, nil
}

// maxKernels bounds how many kernels of a tree are looked at.
const maxKernels = 16

// found is a kernel in a tree.
type found struct {
	tree  *diskTree
	entry *treeEntry
	image image
}

// kernels returns the files of the tree that are kernels, where distributions,
// linuxkit (/kernel) and ignite (/boot/vmlinux) put them. A file of such a
// name that is none is an error: it is most likely a format not known here.
func (t *diskTree) kernels(ctx context.Context) (out []found, err error) {
	for i := range t.entries {
		e := &t.entries[i]
		if e.in.Type != tree.Regular || !isKernelPath(e.path) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if len(out) >= maxKernels {
			return nil, fmt.Errorf("more than %d kernels in it", maxKernels)
		}
		data, err := t.read(e, maxKernel)
		if err != nil {
			return nil, err
		}
		img, err := identify(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.path, err)
		}
		out = append(out, found{t, e, img})
	}
	return out, nil
}

func isKernelPath(name string) bool {
	dir, base := path.Split(name)
	switch dir {
	case "":
		return slices.Contains([]string{"kernel", "bzImage", "vmlinuz", "vmlinux"}, base)
	case "boot/":
		if strings.HasSuffix(base, ".old") || strings.HasSuffix(base, ".hmac") {
			return false
		}
		for _, stem := range []string{"vmlinuz", "vmlinux", "bzImage"} {
			if base == stem || strings.HasPrefix(base, stem+"-") {
				return true
			}
		}
	}
	// Fedora's and Arch's packages have the kernel beside its modules.
	return base == "vmlinuz" && releaseOf(strings.TrimSuffix(dir, "/")) != ""
}

// modulesRoots are where modules lie: the second is that of a merged /usr.
var modulesRoots = []string{"lib/modules/", "usr/lib/modules/"}

// releaseOf returns the release whose modules folder dir is, or "".
func releaseOf(dir string) string {
	for _, root := range modulesRoots {
		if release, ok := strings.CutPrefix(dir, root); ok && IsRelease(release) {
			return release
		}
	}
	return ""
}

// config returns the configuration of the kernel release, nil when the tree
// has none.
func (t *diskTree) config(ctx context.Context, release string) ([]byte, error) {
	names := []string{"boot/config-" + release, "kernel_config", "kernel_config.gz", "boot/config", "config"}
	for _, root := range modulesRoots {
		names = append(names, root+release+"/config")
	}
	for _, name := range names {
		if e := t.find(name); e != nil {
			data, err := t.read(e, maxConfig)
			if err != nil || compression(data) == "" {
				return data, err
			}
			return inflate(ctx, data, maxConfig)
		}
	}
	return nil, nil
}

// releases returns the releases that the tree has modules of.
func (t *diskTree) releases() (out []string) {
	for _, e := range t.entries {
		if e.in.Type != tree.Directory {
			continue
		}
		if r := releaseOf(e.path); r != "" && !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	return out
}

// inner unpacks the tar archive name of the tree into a tree of its own, as
// linuxkit's /kernel.tar. It returns nil when there is no such file.
func (t *diskTree) inner(ctx context.Context, name, scratch string, o build.Options) (*diskTree, error) {
	e := t.find(name)
	if e == nil {
		return nil, nil
	}
	data, err := t.fs.Data(e.in)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(scratch, "inner.tar")
	if err := writeExpanded(ctx, file, io.NewSectionReader(data, 0, data.Size())); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	inner, err := convertTree(ctx, "tar:"+file, scratch, o)
	return inner, errors.Join(err, os.Remove(file))
}

// writeExpanded writes what is in r, decompressed, to a new file.
func writeExpanded(ctx context.Context, file string, r io.Reader) (err error) {
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	return expand(ctx, out, r, maxTree)
}

// lines splits a text file.
func lines(data []byte) (out []string) {
	for line := range bytes.Lines(data) {
		if s := strings.TrimSpace(string(line)); s != "" {
			out = append(out, s)
		}
	}
	return out
}
