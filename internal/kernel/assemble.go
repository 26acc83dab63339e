package kernel

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/base/atomicfile"
	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/base/sparse"
	"github.com/banger-vm/banger/internal/image/build"
)

// assemble makes the folder of a kernel from the trees.
func (g *gathering) assemble(ctx context.Context) (*Kernel, error) {
	kernels, err := g.choose(ctx)
	if err != nil {
		return nil, err
	}
	k := &Kernel{dir: filepath.Join(g.scratch, "new")}
	if err := os.Mkdir(k.dir, 0o700); err != nil {
		return nil, err
	}
	img := kernels[0].image
	k.Schema, k.Release, k.Arch, k.Format = Schema, img.release, img.arch, img.format
	k.Files = map[string]File{}
	config, err := g.config(ctx, img.release)
	if err != nil {
		return nil, err
	}
	if config, err = k.addKernels(ctx, kernels, config); err != nil {
		return nil, err
	}
	if config != nil {
		if err := k.addFile(configFile, config); err != nil {
			return nil, err
		}
	}
	if err := g.addModules(ctx, k); err != nil {
		return nil, err
	}
	if k.ID, err = k.contentID(); err != nil {
		return nil, err
	}
	if g.record != nil {
		if err := g.record.verify(&k.Manifest); err != nil {
			return nil, err
		}
	}
	return k, atomicfile.SyncDir(k.dir)
}

func (g *gathering) config(ctx context.Context, release string) ([]byte, error) {
	for _, t := range g.trees {
		if data, err := t.config(ctx, release); data != nil || err != nil {
			return data, err
		}
	}
	return nil, nil
}

// addKernels writes the kernel and, where there is one, the file with a PVH
// entry. It returns config, or what the kernel carries where there is none.
func (k *Kernel) addKernels(ctx context.Context, kernels []found, config []byte) ([]byte, error) {
	first := kernels[0]
	data, err := first.tree.read(first.entry, maxKernel)
	if err != nil {
		return nil, err
	}
	if err := k.addFile(kernelFile, data); err != nil {
		return nil, err
	}
	if first.image.format == FormatELF {
		k.PVH = first.image.pvh
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
		var img image
		img, err = identifyELF(vmlinux)
		if err == nil && (!img.pvh || img.release != k.Release) {
			err = errors.New("no PVH entry")
		}
	}
	if err != nil {
		k.Warnings = append(k.Warnings, fmt.Sprintf("no vmlinux from the bzImage: %v", err))
		vmlinux = nil
		for _, f := range kernels[1:] {
			if f.image.pvh && vmlinux == nil {
				if vmlinux, err = f.tree.read(f.entry, maxKernel); err != nil {
					return nil, err
				}
			}
		}
	}
	if vmlinux != nil {
		k.PVH = true
		return config, k.addFile(vmlinuxFile, vmlinux)
	}
	return config, nil
}

// addFile writes a file of the kernel's folder through to the device. A kernel is
// no secret, and QEMU may run as a user of its own.
func (k *Kernel) addFile(name string, data []byte) error {
	f, err := os.OpenFile(filepath.Join(k.dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	k.Files[name] = File{Size: int64(len(data)), Digest: sumOf(data)}
	return nil
}

// addModules writes the modules as a disk, and the index of them.
func (g *gathering) addModules(ctx context.Context, k *Kernel) error {
	set, err := collectModules(ctx, g.trees, k.Release)
	if err != nil {
		return err
	}
	if set == nil {
		var others []string
		for _, t := range g.trees {
			others = append(others, t.releases()...)
		}
		if len(others) > 0 {
			return fmt.Errorf("kernel %s has no modules in it, but %s have", k.Release, strings.Join(others, ", "))
		}
		return nil
	}
	g.o.report("writing %d modules of %s", len(set.index.Modules), k.Release)
	k.Warnings = append(k.Warnings, firstFew(set.warnings)...)
	tarFile := filepath.Join(g.scratch, "modules.tar")
	sum, err := writeModulesTar(ctx, tarFile, set)
	if err != nil {
		return fmt.Errorf("write modules: %w", err)
	}
	k.Loadable = &Loadable{Count: len(set.index.Modules), Digest: sum}
	disk := filepath.Join(k.dir, modulesFile)
	o := build.Options{Builder: build.Native, Label: "banger-modules", MaxUnpacked: maxTree}
	o.Pull.CacheDir = g.scratch
	if _, err := build.Convert(ctx, "tar:"+tarFile, disk, o); err != nil {
		return fmt.Errorf("write modules: %w", err)
	}
	if err := k.noteDisk(ctx, disk); err != nil {
		return err
	}
	data, err := encodeIndex(&set.index, maxIndex)
	if err != nil {
		return fmt.Errorf("encode index of modules: %w", err)
	}
	return k.addFile(indexFile, data)
}

// encodeIndex refuses what resolver would not read: more than limit bytes.
func encodeIndex(x *index, limit int64) ([]byte, error) {
	data, err := json.Marshal(x)
	if err == nil && int64(len(data)) >= limit { // with its newline
		err = &SizeError{limit}
	}
	return append(data, '\n'), err
}

// firstFew keeps a source with a fault in every file from filling the manifest.
func firstFew(warnings []string) []string {
	const most = 20
	if len(warnings) <= most {
		return warnings
	}
	return append(slices.Clone(warnings[:most]), fmt.Sprintf("and %d more", len(warnings)-most))
}

func (k *Kernel) noteDisk(ctx context.Context, disk string) error {
	f, err := os.Open(disk)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	sum, err := sparse.Digest(ctx, f)
	k.Files[modulesFile] = File{Size: info.Size(), Digest: sum}
	return err
}

func writeModulesTar(ctx context.Context, name string, set *moduleSet) (sum digest.Digest, err error) {
	f, err := os.Create(name)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	buf := bufio.NewWriterSize(f, 1<<20)
	w := tar.NewWriter(io.MultiWriter(buf, h))
	if err := set.writeTar(ctx, w); err != nil {
		return "", err
	}
	if err := errors.Join(w.Close(), buf.Flush()); err != nil {
		return "", err
	}
	return digest.Digest("sha256:" + hex.EncodeToString(h.Sum(nil))), nil
}
