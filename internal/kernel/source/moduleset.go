package source

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/image/tree"
	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/kernel/compression"
)

// Limits on the modules of one kernel, several times the sizes that
// distributions have. All of it is kept in memory.
const (
	maxModules = 1 << 15
	maxModinfo = 64 << 20 // bytes of all .modinfo sections
	maxDepmod  = 64 << 20 // bytes of each text file that depmod makes
	maxNodes   = 1 << 18  // nodes of depmod's binary indexes, 1 KiB of memory each
	maxText    = 4 << 20  // bytes of modules.order and of modules.builtin
)

// A LimitError reports that the modules of a kernel exceed one of the limits.
type LimitError struct {
	Unit  string
	Limit int64
}

func (e *LimitError) Error() string { return fmt.Sprintf("modules: more than %d %s", e.Limit, e.Unit) }

// A moduleSet is the content of lib/modules/RELEASE.
type moduleSet struct {
	release  string
	files    []moduleFile // sorted by path
	index    kernel.Index
	warnings []string
}

// A moduleFile is a file, folder or symlink below lib/modules/RELEASE. It comes
// from a tree, or depmod has made it.
type moduleFile struct {
	path string // relative to lib/modules/RELEASE
	tree *diskTree
	from *treeEntry
	data []byte // if tree is nil
}

// isForeign reports whether a name at the top of lib/modules/RELEASE does not
// belong to the modules: links to the sources on the machine that built them,
// the kernel, and other files of the boot.
func isForeign(name string) bool {
	switch name {
	case "build", "source", "vmlinuz", "config", "System.map", "symvers.gz", "dtb", "initrd", "initramfs.img", "vdso":
		return true
	}
	return false
}

// collectModules returns the modules of release in the trees, or nil if there
// are none. If two trees have a file of the same name, it uses the first and
// adds a warning.
func collectModules(ctx context.Context, trees []*diskTree, release string) (*moduleSet, error) {
	set := &moduleSet{release: release}
	seen := map[string]bool{}
	for _, t := range trees {
		for i := range t.entries {
			e := &t.entries[i]
			rel := belowModules(e.path, release)
			top, _, _ := strings.Cut(rel, "/")
			if rel == "" || isForeign(top) {
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
			set.files = append(set.files, moduleFile{path: rel, tree: t, from: e})
		}
	}
	if len(set.files) == 0 {
		return nil, nil
	}
	set.sort()
	return set, set.addIndex(ctx)
}

func (s *moduleSet) sort() {
	slices.SortFunc(s.files, func(a, b moduleFile) int { return strings.Compare(a.path, b.path) })
}

// belowModules returns the part of name after lib/modules/RELEASE, or "".
func belowModules(name, release string) string {
	for _, root := range moduleRoots {
		if rel, ok := strings.CutPrefix(name, root+release+"/"); ok {
			return rel
		}
	}
	return ""
}

// addIndex fills the index from the modules. If the set has no modules.dep, as
// in packages that leave it to their installation, addIndex adds the files that
// modprobe(8) reads.
func (s *moduleSet) addIndex(ctx context.Context) error {
	infos, err := s.readModules(ctx)
	if err != nil {
		return err
	}
	if err := s.readBuiltin(); err != nil {
		return err
	}
	if s.find("modules.dep") != nil || len(infos) == 0 {
		return nil
	}
	linked, err := s.lines("modules.order")
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
		if s.find(name) == nil { // the package's own files have precedence
			s.files = append(s.files, moduleFile{path: name, data: data})
		}
	}
	s.sort()
	return nil
}

// readModules adds the modules to the index and returns their .modinfo
// sections, in the same order.
func (s *moduleSet) readModules(ctx context.Context) ([]modinfo, error) {
	var infos []modinfo
	var kept int64
	for i := range s.files {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		f := &s.files[i]
		name := moduleNameOf(f.path)
		if name == "" || f.from.in.Type != tree.Regular {
			continue
		}
		info, err := f.modinfo(ctx)
		if err != nil {
			return nil, fmt.Errorf("module %s: %w", f.path, err)
		}
		info.name = name
		if kept += info.size(); kept > maxModinfo {
			return nil, &LimitError{"bytes in their sections .modinfo", maxModinfo}
		}
		if len(infos) >= maxModules {
			return nil, &LimitError{"modules", maxModules}
		}
		infos = append(infos, info)
		s.index.Modules = append(s.index.Modules, info.indexEntry(f.path))
	}
	return infos, nil
}

// readBuiltin adds the modules listed in modules.builtin to the index.
func (s *moduleSet) readBuiltin() error {
	paths, err := s.lines("modules.builtin")
	if err != nil {
		return err
	}
	for _, p := range paths {
		if name := moduleNameOf(p); name != "" {
			if len(s.index.Builtin) >= maxModules {
				return &LimitError{"names in modules.builtin", maxModules}
			}
			s.index.Builtin = append(s.index.Builtin, name)
		}
	}
	slices.Sort(s.index.Builtin)
	return nil
}

func (s *moduleSet) find(name string) *moduleFile {
	for i := range s.files {
		if s.files[i].path == name {
			return &s.files[i]
		}
	}
	return nil
}

// lines returns the lines of a text file of the set that are not empty, or none
// if there is no such file.
func (s *moduleSet) lines(name string) (out []string, err error) {
	f := s.find(name)
	if f == nil || f.from.in.Type != tree.Regular {
		return nil, nil
	}
	data, err := f.tree.read(f.from, maxText)
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	return out, err
}

func (f *moduleFile) modinfo(ctx context.Context) (modinfo, error) {
	stored, err := f.tree.read(f.from, kernel.MaxModule)
	if err != nil {
		return modinfo{}, err
	}
	module, err := compression.Decompress(ctx, stored, kernel.MaxModule)
	if err != nil {
		return modinfo{}, err
	}
	return parseModinfo(module)
}
