package supervisor

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/guest/bin"
	"github.com/banger-vm/banger/internal/guest/initrd"
	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/kernel/kerneltest"
	"github.com/banger-vm/banger/internal/kernel/source"
	"github.com/banger-vm/banger/internal/vmm"
)

// BenchmarkInitramfs writes the initramfs of a machine, from the cache of shared
// initramfs and without it. The cache saves the decompression of the modules, which
// many distributions compress with xz.
func BenchmarkInitramfs(b *testing.B) {
	for _, format := range []string{"none", "xz"} {
		k := kernelWithModules(b, format)
		cache, path := b.TempDir(), filepath.Join(b.TempDir(), "initramfs")
		for _, row := range []struct {
			name  string
			write func() error
		}{
			{"cached", func() error {
				base, _, err := baseInitramfs(b.Context(), cache, k, drivers(vmm.MicroVM, false))
				if err != nil {
					return err
				}
				return writeInitramfs(path, base, guest.Config{})
			}},
			{"uncached", func() error { return writeWithoutCache(b, path, k) }},
		} {
			b.Run(format+"/"+row.name, func(b *testing.B) {
				for b.Loop() {
					if err := row.write(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func writeWithoutCache(b *testing.B, path string, k *kernel.Kernel) error {
	b.Helper()
	program, err := bin.Program()
	if err != nil {
		return err
	}
	modules, err := k.Modules(b.Context(), drivers(vmm.MicroVM, false))
	if err != nil {
		return err
	}
	parts := make([]initrd.Module, 0, len(modules))
	for _, m := range modules {
		parts = append(parts, initrd.Module(m))
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := initrd.Base(f, program, parts); err != nil {
		return err
	}
	return initrd.Machine(f, guest.Config{})
}

// kernelWithModules returns a kernel with the drivers of a machine as modules, which
// have the sizes of Debian's and are compressed in the given format.
func kernelWithModules(b *testing.B, format string) *kernel.Kernel {
	b.Helper()
	program, err := bin.Program()
	if err != nil {
		b.Fatal(err)
	}
	dir := "./lib/modules/" + kerneltest.Release + "/"
	files := []kerneltest.File{
		{Name: "./"}, {Name: "./boot/"}, {Name: "./lib/"}, {Name: "./lib/modules/"}, {Name: dir},
		{Name: "./boot/vmlinuz-" + kerneltest.Release, Content: string(kerneltest.BzImage(kerneltest.Release,
			kerneltest.Payload(b, "lz4", kerneltest.VMLinux(kerneltest.Release, true))))},
	}
	suffix := ".ko"
	if format != "none" {
		suffix += "." + format
	}
	for _, m := range []struct {
		name string
		size int // KiB
	}{{"virtio_mmio", 20}, {"virtio_blk", 40}, {"virtio_console", 60}, {"ext4", 1000}} {
		data := append(kerneltest.Module("depends="), program[:m.size<<10]...)
		files = append(files, kerneltest.File{Name: dir + m.name + suffix, Content: string(kerneltest.Compress(b, format, data))})
	}
	s, err := kernel.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	deb := kerneltest.WriteFile(b, "linux.deb", kerneltest.Deb(b, kerneltest.Control, "none", files...))
	k, _, err := source.Pull(b.Context(), s, "deb:"+deb, "test", source.Options{})
	if err != nil {
		b.Fatal(err)
	}
	return k
}
