package kernel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	ext4 "github.com/banger-vm/banger/internal/image/ext4/read"
	"github.com/banger-vm/banger/internal/image/tree"
)

// maxIndex bounds the file modules.json in bytes.
const maxIndex = 64 << 20

// index is what is known of a kernel's modules.
type index struct {
	Modules []indexed `json:"modules"` // by path
	Builtin []string  `json:"builtin"` // of what could have been a module, sorted
}

// indexed is one module. '-' in names is written '_'.
type indexed struct {
	Name    string   `json:"name"`
	Path    string   `json:"path"` // relative to lib/modules/RELEASE
	Depends []string `json:"depends,omitempty"`
	Pre     []string `json:"pre,omitempty"`     // names or aliases: wanted before, if there
	Aliases []string `json:"aliases,omitempty"` // those without wildcards
}

func (x *index) add(path string, info modinfo) {
	m := indexed{Name: info.name, Path: path, Depends: info.depends}
	for _, p := range info.pre {
		m.Pre = append(m.Pre, moduleName(p))
	}
	for _, a := range info.aliases {
		if !strings.ContainsAny(a, "*?[") {
			m.Aliases = append(m.Aliases, moduleName(a))
		}
	}
	x.Modules = append(x.Modules, m)
}

// find returns the module that name stands for by itself or as an alias, or
// nil.
func (x *index) find(name string) *indexed {
	for i := range x.Modules {
		if x.Modules[i].Name == name {
			return &x.Modules[i]
		}
	}
	for i := range x.Modules {
		if slices.Contains(x.Modules[i].Aliases, name) {
			return &x.Modules[i]
		}
	}
	return nil
}

// A Module is a kernel module as the kernel loads it: an ELF file.
type Module struct {
	Name string // with '_' for '-'
	Data []byte
}

// A MissingError names what a kernel has neither built in nor as a module.
type MissingError struct {
	Kernel  string
	Missing []string
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("kernel %s: neither built in nor a module: %s", e.Kernel, strings.Join(e.Missing, ", "))
}

// Modules returns the wanted modules with all that they need, in the order in
// which they are to be loaded. What is built into the kernel is left out.
// Where neither the configuration nor the modules of the kernel are known,
// all counts as built in. Signatures are left out where the kernel loads
// modules without. The error may be a *MissingError.
func (k *Kernel) Modules(ctx context.Context, wanted []string) ([]Module, error) {
	r, err := k.resolver()
	if err != nil {
		return nil, err
	}
	for _, name := range wanted {
		r.need(moduleName(name))
	}
	if len(r.missing) > 0 {
		return nil, &MissingError{Kernel: k.ShownName(), Missing: r.missing}
	}
	if len(r.order) == 0 {
		return nil, nil
	}
	disk, err := openDisk(k.ModulesDisk())
	if err != nil {
		return nil, fmt.Errorf("kernel %s: %w", k.ShownName(), err)
	}
	defer disk.Close()
	var out []Module
	for _, m := range r.order {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		data, err := disk.module(ctx, path.Join("lib/modules", k.Release, m.Path))
		if err != nil {
			return nil, fmt.Errorf("kernel %s: module %s: %w", k.ShownName(), m.Name, err)
		}
		if r.options["CONFIG_MODULE_SIG_FORCE"] != "y" {
			data = unsigned(data)
		}
		out = append(out, Module{Name: m.Name, Data: data})
	}
	return out, nil
}

// resolver puts modules into order.
type resolver struct {
	index   index
	options map[string]string // of the configuration; nil when it is not known
	order   []*indexed
	seen    map[string]bool
	missing []string
}

func (k *Kernel) resolver() (*resolver, error) {
	r := &resolver{seen: map[string]bool{}}
	if p := k.Path(indexFile); p != "" {
		f, err := os.Open(p)
		if err != nil {
			return nil, fmt.Errorf("kernel %s: %w", k.ShownName(), err)
		}
		defer f.Close()
		data, err := readBounded(f, maxIndex)
		if err == nil {
			err = json.Unmarshal(data, &r.index)
		}
		if err != nil {
			return nil, fmt.Errorf("kernel %s: read %s: %w", k.ShownName(), p, err)
		}
	}
	if p := k.Path(configFile); p != "" {
		data, err := os.ReadFile(p)
		if err != nil {
			return nil, fmt.Errorf("kernel %s: %w", k.ShownName(), err)
		}
		r.options = parseConfig(data)
	}
	return r, nil
}

// has returns how the kernel has the module name.
func (r *resolver) has(name, option string) State {
	if option == "" {
		option = "CONFIG_" + strings.ToUpper(name)
	}
	switch {
	case r.index.find(name) != nil:
		return IsModule
	case slices.Contains(r.index.Builtin, name), r.options[option] == "y":
		return BuiltIn
	case r.options == nil && len(r.index.Builtin) == 0:
		return Unknown
	}
	return Missing
}

// need puts name behind all that it needs. A module that needs itself is no
// endless loop: it is marked before its own needs are looked at.
func (r *resolver) need(name string) {
	m := r.index.find(name)
	if m == nil {
		if r.has(name, optionOf(name)) == Missing && !slices.Contains(r.missing, name) {
			r.missing = append(r.missing, name)
		}
		return
	}
	if r.seen[m.Name] {
		return
	}
	r.seen[m.Name] = true
	for _, p := range m.Pre {
		if r.index.find(p) != nil {
			r.need(p)
		}
	}
	for _, d := range m.Depends {
		r.need(d)
	}
	r.order = append(r.order, m)
}

// parseConfig reads the lines NAME=value of a kernel's configuration.
func parseConfig(data []byte) map[string]string {
	out := map[string]string{}
	for _, line := range lines(data) {
		if name, value, ok := strings.Cut(line, "="); ok && strings.HasPrefix(name, "CONFIG_") {
			out[name] = value
		}
	}
	return out
}

// diskReader reads single files of a modules disk.
type diskReader struct {
	*os.File
	fs *ext4.FS
}

func openDisk(name string) (*diskReader, error) {
	if name == "" {
		return nil, errors.New("there is no disk with modules")
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	fs, err := ext4.Open(f, info.Size())
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", filepath.Base(name), err)
	}
	return &diskReader{f, fs}, nil
}

// module reads the module in the regular file name, decompressed.
func (d *diskReader) module(ctx context.Context, name string) ([]byte, error) {
	number := uint32(ext4.RootInode)
	for part := range strings.SplitSeq(name, "/") {
		dir, err := d.fs.Inode(number)
		if err != nil {
			return nil, err
		}
		if number, err = d.fs.Lookup(dir, part); err != nil {
			return nil, err
		}
		if number == 0 {
			return nil, fmt.Errorf("%s: not on the modules disk", name)
		}
	}
	in, err := d.fs.Inode(number)
	if err != nil {
		return nil, err
	}
	if in.Type != tree.Regular {
		return nil, fmt.Errorf("%s: not a regular file", name)
	}
	t := &diskTree{disk: d.File, fs: d.fs}
	stored, err := t.read(&treeEntry{name, in}, maxModule)
	if err != nil {
		return nil, err
	}
	return inflate(ctx, stored, maxModule)
}
