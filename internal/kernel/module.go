package kernel

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

	"github.com/banger-vm/banger/internal/base/jsonfile"
	ext4 "github.com/banger-vm/banger/internal/image/ext4/read"
	"github.com/banger-vm/banger/internal/image/tree"
	"github.com/banger-vm/banger/internal/kernel/compression"
)

// MaxModule is the maximum size in bytes of one module, compressed or not.
const MaxModule = 256 << 20

// A Module is a kernel module in the form that the kernel loads: an ELF file,
// not compressed.
type Module struct {
	Name string // as ModuleName returns it
	Data []byte
}

// A MissingError lists the modules that a kernel has neither built in nor as
// files.
type MissingError struct {
	Kernel  string
	Missing []string
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("kernel %s: neither built in nor a module: %s", e.Kernel, strings.Join(e.Missing, ", "))
}

// Modules returns the wanted modules and their dependencies in the order in
// which the guest must load them. It leaves out modules that are built into the
// kernel. If neither the configuration nor the modules of the kernel are known,
// it assumes that all are built in. It removes the modules' signatures unless
// the kernel insists on them. It returns a *MissingError if the kernel lacks a
// module.
func (k *Kernel) Modules(ctx context.Context, wanted []string) ([]Module, error) {
	r, err := k.resolver()
	if err != nil {
		return nil, err
	}
	for _, name := range wanted {
		r.add(ModuleName(name))
	}
	if len(r.missing) > 0 {
		return nil, &MissingError{Kernel: k.ShownName(), Missing: r.missing}
	}
	if len(r.order) == 0 {
		return nil, nil
	}
	disk, err := openModulesDisk(k.ModulesDisk())
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
			data = stripSignature(data)
		}
		out = append(out, Module{Name: m.Name, Data: data})
	}
	return out, nil
}

// resolver collects modules in the order in which they must be loaded.
type resolver struct {
	index   Index
	options map[string]string // of the kernel's configuration; nil if that is not known
	order   []*ModuleInfo
	seen    map[string]bool
	missing []string
}

func (k *Kernel) resolver() (*resolver, error) {
	r := &resolver{seen: map[string]bool{}}
	if p := k.Path(indexFile); p != "" {
		if err := jsonfile.Read(p, maxIndex, &r.index); err != nil {
			return nil, fmt.Errorf("kernel %s: read %s: %w", k.ShownName(), p, err)
		}
	}
	if p := k.Path(ConfigFile); p != "" {
		data, err := os.ReadFile(p)
		if err != nil {
			return nil, fmt.Errorf("kernel %s: %w", k.ShownName(), err)
		}
		r.options = parseConfig(string(data))
	}
	return r, nil
}

// state reports how the kernel provides the module name. option is the
// configuration option that builds it; "" derives the option from the name.
func (r *resolver) state(name, option string) State {
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

// add appends the module name to the order, after its dependencies. It marks a
// module before it visits the dependencies, so a cycle ends.
func (r *resolver) add(name string) {
	m := r.index.find(name)
	if m == nil {
		if r.state(name, optionOf(name)) == Missing && !slices.Contains(r.missing, name) {
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
			r.add(p)
		}
	}
	for _, d := range m.Depends {
		r.add(d)
	}
	r.order = append(r.order, m)
}

// parseConfig returns the options of a kernel's configuration, which are lines
// of the form CONFIG_NAME=value.
func parseConfig(text string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && strings.HasPrefix(name, "CONFIG_") {
			out[name] = value
		}
	}
	return out
}

// modulesDisk reads single files of a modules disk.
type modulesDisk struct {
	*os.File
	fs *ext4.FS
}

func openModulesDisk(name string) (*modulesDisk, error) {
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
	return &modulesDisk{f, fs}, nil
}

// module returns the content of the regular file name, decompressed. It does
// not follow symlinks.
func (d *modulesDisk) module(ctx context.Context, name string) ([]byte, error) {
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
	data, err := d.fs.Data(in)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	stored, err := compression.ReadAll(io.NewSectionReader(data, 0, data.Size()), MaxModule)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return compression.Decompress(ctx, stored, MaxModule)
}
