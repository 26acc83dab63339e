package source

import (
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
	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/kernel/compression"
)

// A diskTree is the file tree of a source, on a scratch disk. It is read file
// by file from there, so no path in it becomes a path on the host.
type diskTree struct {
	disk    *os.File
	fs      *ext4.FS
	entries []treeEntry // sorted by path
}

type treeEntry struct {
	path string // relative to the root, clean
	in   *ext4.Inode
}

// maxEntries is the maximum number of files in a tree.
const maxEntries = 1 << 20

// convertTree converts source, in any form that package build accepts, into a
// tree on a disk in the folder scratch.
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

// find returns the regular file with that path, or nil.
func (t *diskTree) find(name string) *treeEntry {
	i, ok := slices.BinarySearchFunc(t.entries, name, func(e treeEntry, p string) int { return strings.Compare(e.path, p) })
	if !ok || t.entries[i].in.Type != tree.Regular {
		return nil
	}
	return &t.entries[i]
}

// read returns the content of a regular file. It returns a
// *compression.SizeError if the file has more than limit bytes.
func (t *diskTree) read(e *treeEntry, limit int64) ([]byte, error) {
	f, err := t.fs.Data(e.in)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", e.path, err)
	}
	if f.Size() > limit {
		return nil, fmt.Errorf("read %s: %w", e.path, &compression.SizeError{Limit: limit})
	}
	data := make([]byte, f.Size())
	if _, err := f.ReadAt(data, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read %s: %w", e.path, err)
	}
	return data, nil
}

// maxKernels is the maximum number of kernel files in a tree.
const maxKernels = 16

// A candidate is a kernel file in a tree.
type candidate struct {
	tree  *diskTree
	entry *treeEntry
	info  kernelInfo
}

// kernels returns the kernel files of the tree, at the paths that isKernelPath
// accepts. It returns an error if such a file is not a kernel, because that is
// most likely a format that this package does not support.
func (t *diskTree) kernels(ctx context.Context) (out []candidate, err error) {
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
		info, err := identify(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.path, err)
		}
		out = append(out, candidate{t, e, info})
	}
	return out, nil
}

// isKernelPath reports whether a file of that path should be a kernel. Linuxkit
// uses /kernel, ignite /boot/vmlinux, distributions /boot/vmlinuz-RELEASE or,
// in packages of Fedora and Arch, /lib/modules/RELEASE/vmlinuz.
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
	return base == "vmlinuz" && releaseOf(strings.TrimSuffix(dir, "/")) != ""
}

// moduleRoots are the folders that contain modules. The second one is that of a
// system whose /lib is a link to /usr/lib.
var moduleRoots = []string{"lib/modules/", "usr/lib/modules/"}

// releaseOf returns the release if dir is the folder of a release's modules,
// else "".
func releaseOf(dir string) string {
	for _, root := range moduleRoots {
		if release, ok := strings.CutPrefix(dir, root); ok && kernel.IsRelease(release) {
			return release
		}
	}
	return ""
}

// config returns the configuration of the kernel release, or nil if the tree
// has none.
func (t *diskTree) config(ctx context.Context, release string) ([]byte, error) {
	names := []string{"boot/config-" + release, "kernel_config", "kernel_config.gz", "boot/config", "config"}
	for _, root := range moduleRoots {
		names = append(names, root+release+"/config")
	}
	for _, name := range names {
		if e := t.find(name); e != nil {
			data, err := t.read(e, maxConfig)
			if err != nil {
				return nil, err
			}
			return compression.Decompress(ctx, data, maxConfig)
		}
	}
	return nil, nil
}

// releases returns the releases for which the tree has a folder of modules.
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

// inner returns the tree inside the tar archive name, such as /kernel.tar in an
// image of linuxkit, or nil if there is no such file.
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
	if err := decompressFile(ctx, file, io.NewSectionReader(data, 0, data.Size())); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	inner, err := convertTree(ctx, "tar:"+file, scratch, o)
	return inner, errors.Join(err, os.Remove(file))
}

// decompressFile writes r, decompressed, to a new file.
func decompressFile(ctx context.Context, file string, r io.Reader) (err error) {
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	return compression.Copy(ctx, out, r, maxTree)
}
