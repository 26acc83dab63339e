package kernel

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/banger-vm/banger/internal/image/tree"
)

// moduleSet is what goes below lib/modules/RELEASE.
type moduleSet struct {
	release  string
	files    []moduleFileEntry // sorted by path
	index    index
	warnings []string
}

// moduleFileEntry is one name below lib/modules/RELEASE: of a tree, or made
// here.
type moduleFileEntry struct {
	path string // relative to lib/modules/RELEASE
	tree *diskTree
	from *treeEntry
	data []byte // where tree is nil
}

// notModules are the names at the top of a modules folder that are no
// modules: links to the sources of whoever built it, and the kernel itself.
var notModules = strings.Fields("build source vmlinuz config System.map symvers.gz dtb initrd initramfs.img vdso")

// collectModules finds the modules of release in the trees. Where two have a
// file of the same name the first one's is taken. It returns nil when there
// are none.
func collectModules(ctx context.Context, trees []*diskTree, release string) (*moduleSet, error) {
	set := &moduleSet{release: release}
	seen := map[string]bool{}
	for _, t := range trees {
		for i := range t.entries {
			e := &t.entries[i]
			rel := belowModules(e.path, release)
			top, _, _ := strings.Cut(rel, "/")
			if rel == "" || slices.Contains(notModules, top) {
				continue
			}
			switch e.in.Type {
			case tree.Regular, tree.Symlink, tree.Directory:
			default:
				return nil, fmt.Errorf("%s: neither a file, a folder nor a symlink", e.path)
			}
			if seen[rel] {
				if e.in.Type != tree.Directory {
					set.warnings = append(set.warnings, fmt.Sprintf("%s: another file of that name came first", e.path))
				}
				continue
			}
			seen[rel] = true
			set.files = append(set.files, moduleFileEntry{path: rel, tree: t, from: e})
		}
	}
	if len(set.files) == 0 {
		return nil, nil
	}
	set.sort()
	return set, set.makeIndex(ctx)
}

func (s *moduleSet) sort() {
	slices.SortFunc(s.files, func(a, b moduleFileEntry) int { return strings.Compare(a.path, b.path) })
}

// belowModules returns the part of name behind lib/modules/RELEASE, or "".
func belowModules(name, release string) string {
	for _, root := range modulesRoots {
		if rel, ok := strings.CutPrefix(name, root+release+"/"); ok {
			return rel
		}
	}
	return ""
}

// Bounds of the modules of one kernel, several times what distributions have:
// what is kept of them lies in memory.
const (
	maxModules = 1 << 15
	maxKept    = 64 << 20 // bytes of what modules say of themselves
	maxDepmod  = 64 << 20 // bytes of text that depmod makes
	maxNodes   = 1 << 18  // of its indexes, each of which takes 1 KiB
)

// A LimitError says that the modules of a kernel are more than banger takes.
type LimitError struct {
	What  string
	Limit int64
}

func (e *LimitError) Error() string { return fmt.Sprintf("modules: more than %d %s", e.Limit, e.What) }

// makeIndex reads what the modules say of themselves, and adds what
// modprobe(8) reads where that lacks.
func (s *moduleSet) makeIndex(ctx context.Context) error {
	var infos []modinfo
	var kept int64
	for i := range s.files {
		if err := ctx.Err(); err != nil {
			return err
		}
		f := &s.files[i]
		name := moduleFile(f.path)
		if name == "" || f.from.in.Type != tree.Regular {
			continue
		}
		info, err := f.modinfo(ctx)
		if err != nil {
			return fmt.Errorf("module %s: %w", f.path, err)
		}
		info.name = name
		if kept += info.size(); kept > maxKept {
			return &LimitError{"bytes in their sections .modinfo", maxKept}
		}
		if len(infos) >= maxModules {
			return &LimitError{"modules", maxModules}
		}
		infos = append(infos, info)
		s.index.add(f.path, info)
	}
	builtin, err := s.text("modules.builtin")
	if err != nil {
		return err
	}
	for _, line := range builtin {
		if name := moduleFile(line); name != "" {
			if len(s.index.Builtin) >= maxModules {
				return &LimitError{"names in modules.builtin", maxModules}
			}
			s.index.Builtin = append(s.index.Builtin, name)
		}
	}
	slices.Sort(s.index.Builtin)
	if s.find("modules.dep") != nil || len(infos) == 0 {
		return nil
	}
	linked, err := s.text("modules.order")
	if err != nil {
		return err
	}
	order := map[string]int{}
	for i, line := range linked {
		order[line] = i
	}
	made, err := depmod(ctx, &s.index, infos, order)
	if err != nil {
		return err
	}
	for name, data := range made {
		if s.find(name) == nil { // what there is of the package's own stays
			s.files = append(s.files, moduleFileEntry{path: name, data: data})
		}
	}
	s.sort()
	return nil
}

func (s *moduleSet) find(name string) *moduleFileEntry {
	for i := range s.files {
		if s.files[i].path == name {
			return &s.files[i]
		}
	}
	return nil
}

// text returns the lines of a file of the set, none where it is not there.
func (s *moduleSet) text(name string) ([]string, error) {
	f := s.find(name)
	if f == nil || f.from.in.Type != tree.Regular {
		return nil, nil
	}
	data, err := f.tree.read(f.from, maxText)
	return lines(data), err
}

// maxText bounds modules.order and modules.builtin in bytes.
const maxText = 4 << 20

func (f *moduleFileEntry) modinfo(ctx context.Context) (modinfo, error) {
	stored, err := f.tree.read(f.from, maxModule)
	if err != nil {
		return modinfo{}, err
	}
	module, err := inflate(ctx, stored, maxModule)
	if err != nil {
		return modinfo{}, err
	}
	return parseModinfo(module)
}

// writeTar writes the modules as the tar that a kernel's ID covers: names
// sorted, nothing but names, content and symlinks' targets in it, so that the
// same modules give the same bytes wherever they came from.
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

func (f *moduleFileEntry) writeTar(ctx context.Context, w *tar.Writer, name string) error {
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
		h := tarHeader(name, tar.TypeSymlink, 0)
		h.Linkname = target
		return w.WriteHeader(h)
	}
	data, err := f.tree.fs.Data(f.from.in)
	if err != nil {
		return err
	}
	if err := w.WriteHeader(tarHeader(name, tar.TypeReg, data.Size())); err != nil {
		return err
	}
	_, err = io.Copy(w, interruptible(ctx, io.NewSectionReader(data, 0, data.Size())))
	return err
}

func writeTarFile(w *tar.Writer, name string, data []byte) error {
	if err := w.WriteHeader(tarHeader(name, tar.TypeReg, int64(len(data)))); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

func tarHeader(name string, kind byte, size int64) *tar.Header {
	h := &tar.Header{Name: name, Typeflag: kind, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0)}
	switch kind {
	case tar.TypeDir:
		h.Name, h.Mode = name+"/", 0o755
	case tar.TypeSymlink:
		h.Mode = 0o777
	}
	return h
}
