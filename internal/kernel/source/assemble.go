package source

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/image/build"
	"github.com/banger-vm/banger/internal/kernel"
)

// assemble builds the folder of a kernel from the trees.
func (f *fetcher) assemble(ctx context.Context) (*kernel.Builder, error) {
	candidates, err := f.selectKernels(ctx)
	if err != nil {
		return nil, err
	}
	b, err := kernel.NewBuilder(filepath.Join(f.scratch, "new"))
	if err != nil {
		return nil, err
	}
	info := candidates[0].info
	b.Release, b.Arch, b.Format = info.release, info.arch, info.format
	config, err := f.config(ctx, info.release)
	if err != nil {
		return nil, err
	}
	if config, err = addKernels(ctx, b, candidates, config); err != nil {
		return nil, err
	}
	if config != nil {
		if err := b.AddFile(kernel.ConfigFile, config); err != nil {
			return nil, err
		}
	}
	if err := f.addModules(ctx, b); err != nil {
		return nil, err
	}
	if err := b.Finish(); err != nil {
		return nil, err
	}
	if f.record != nil {
		return b, f.record.verify(&b.Manifest)
	}
	return b, nil
}

// config returns the configuration of the kernel release from the first tree
// that has it, or nil.
func (f *fetcher) config(ctx context.Context, release string) ([]byte, error) {
	for _, t := range f.trees {
		if data, err := t.config(ctx, release); data != nil || err != nil {
			return data, err
		}
	}
	return nil, nil
}

// addKernels writes the kernel file and, if there is one, the file with a PVH
// entry. It returns config, or the configuration embedded in the kernel if
// config is nil.
func addKernels(ctx context.Context, b *kernel.Builder, candidates []candidate, config []byte) ([]byte, error) {
	first := candidates[0]
	data, err := first.tree.read(first.entry, maxKernel)
	if err != nil {
		return nil, err
	}
	if err := b.AddFile(kernel.KernelFile, data); err != nil {
		return nil, err
	}
	if first.info.format == kernel.FormatELF {
		b.PVH = first.info.pvh
		if config == nil {
			config = embeddedConfig(ctx, data)
		}
		return config, nil
	}
	vmlinux, err := extractVMLinux(ctx, data)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err == nil && config == nil {
		config = embeddedConfig(ctx, vmlinux)
	}
	if err == nil {
		var info kernelInfo
		info, err = identifyELF(vmlinux)
		if err == nil && (!info.pvh || info.release != b.Release) {
			err = errors.New("no PVH entry")
		}
	}
	if err != nil {
		b.Warnings = append(b.Warnings, fmt.Sprintf("no vmlinux from the bzImage: %v", err))
		if vmlinux, err = readPVH(candidates[1:]); err != nil {
			return nil, err
		}
	}
	if vmlinux != nil {
		b.PVH = true
		return config, b.AddFile(kernel.VMLinuxFile, vmlinux)
	}
	return config, nil
}

// readPVH returns the first candidate with a PVH entry, or nil.
func readPVH(candidates []candidate) ([]byte, error) {
	for _, c := range candidates {
		if c.info.pvh {
			return c.tree.read(c.entry, maxKernel)
		}
	}
	return nil, nil
}

// addModules writes the modules of the kernel as a disk with an index. It
// returns an error if the trees have modules, but none of this release.
func (f *fetcher) addModules(ctx context.Context, b *kernel.Builder) error {
	set, err := collectModules(ctx, f.trees, b.Release)
	if err != nil {
		return err
	}
	if set == nil {
		var others []string
		for _, t := range f.trees {
			others = append(others, t.releases()...)
		}
		if len(others) > 0 {
			return fmt.Errorf("kernel %s has no modules in it, but %s have", b.Release, strings.Join(others, ", "))
		}
		return nil
	}
	f.options.report("writing %d modules of %s", len(set.index.Modules), b.Release)
	b.Warnings = append(b.Warnings, limitWarnings(set.warnings)...)
	tarFile := filepath.Join(f.scratch, "modules.tar")
	sum, err := writeModulesTar(ctx, tarFile, set)
	if err != nil {
		return fmt.Errorf("write modules: %w", err)
	}
	o := build.Options{Builder: build.Native, Label: "banger-modules", MaxUnpacked: maxTree}
	o.Pull.CacheDir = f.scratch
	if _, err := build.Convert(ctx, "tar:"+tarFile, filepath.Join(b.Dir(), kernel.ModulesFile), o); err != nil {
		return fmt.Errorf("write modules: %w", err)
	}
	return b.AddModules(ctx, kernel.Loadable{Count: len(set.index.Modules), Digest: sum}, &set.index)
}

// limitWarnings shortens a list of warnings, because a source can have a fault
// in every file.
func limitWarnings(warnings []string) []string {
	const most = 20
	if len(warnings) <= most {
		return warnings
	}
	return append(slices.Clone(warnings[:most]), fmt.Sprintf("and %d more", len(warnings)-most))
}

// writeModulesTar writes the modules to a new file and returns its digest.
func writeModulesTar(ctx context.Context, name string, set *moduleSet) (sum digest.Digest, err error) {
	f, err := os.Create(name)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := newHashWriter()
	buf := bufio.NewWriterSize(f, 1<<20)
	w := tar.NewWriter(io.MultiWriter(buf, h))
	if err := set.writeTar(ctx, w); err != nil {
		return "", err
	}
	if err := errors.Join(w.Close(), buf.Flush()); err != nil {
		return "", err
	}
	return h.digest(), nil
}
