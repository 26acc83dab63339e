package supervisor

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/banger-vm/banger/internal/base/atomicfile"
	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/guest/bin"
	"github.com/banger-vm/banger/internal/guest/client"
	"github.com/banger-vm/banger/internal/guest/initrd"
	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/qemu"
)

// Bounds of the cache of initramfs.
const (
	maxInitramfs     = 8         // in the cache
	maxInitramfsSize = 256 << 20 // bytes of one
)

// drivers returns the kernel modules that a machine's devices and its root file
// system need.
func drivers(model vmm.Model, overlay bool) []string {
	common := []string{"virtio_blk", "virtio_console", "ext4"}
	if overlay {
		common = append(common, "overlay")
	}
	if model == vmm.Q35 {
		return append([]string{"virtio_pci"}, common...)
	}
	return append([]string{"virtio_mmio"}, common...)
}

// prepare returns the configuration of the monitor, without the root disk, and
// the keys of the machine. It makes the console's log and the initramfs.
func (m *instance) prepare(ctx context.Context, c *bootConfig) (cfg *vmm.Config, keys client.Keys, err error) {
	watcher, logs := c.console, m.dir.Data
	if !m.hasMain() {
		watcher = c.output
	}
	if m.files {
		logs = m.dir.Runtime // the logs of the machine are of its runs
	}
	if m.console, err = openConsole(logs, watcher); err != nil {
		return nil, keys, err
	}
	if keys, err = client.NewKeys(); err != nil {
		return nil, keys, err
	}
	conf := &m.record.Config
	base, modules, err := baseInitramfs(ctx, c.cache, c.kernel, drivers(conf.Model, m.record.Plan.Overlay))
	if err != nil {
		return nil, keys, err
	}
	gc := m.guestConfig(keys, modules)
	cfg = &vmm.Config{
		Name: conf.Name, Model: conf.Model, Accel: c.accel, CPUs: conf.CPUs, Memory: conf.Memory,
		Kernel: c.kernel.BootPath(), Initrd: filepath.Join(m.dir.Runtime, "initramfs"),
		AgentPort: guest.AgentPort, Dir: m.dir.Runtime, Console: m.console,
	}
	if m.record.Plan.Init == guest.InitImage {
		// Without these words systemd waits 90 s for a login terminal that
		// udev never announces, and renames the network device.
		cfg.Cmdline = []string{"systemd.getty_auto=0", "net.ifnames=0"}
	}
	if disk := c.kernel.ModulesDisk(); disk != "" {
		gc.ModulesDisk = true
		cfg.Disks = []vmm.Disk{{Serial: guest.ModulesSerial, Path: disk, Format: vmm.Raw, ReadOnly: true}}
	}
	if cfg.Accel == "" {
		if cfg.Accel, err = chooseAccel(ctx, c, cfg, base); err != nil {
			return nil, keys, err
		}
	}
	if gc.Entropy, err = entropy(); err != nil {
		return nil, keys, err
	}
	gc.Time = time.Now().UnixNano()
	return cfg, keys, writeInitramfs(cfg.Initrd, base, gc)
}

// entropy returns the seed for the guest kernel's random number generator.
func entropy() ([]byte, error) {
	const size = 64 // bytes: twice the size of the generator's key
	b := make([]byte, size)
	_, err := rand.Read(b)
	return b, err
}

// chooseAccel returns KVM if a probe of it boots the kernel, else TCG, with a note to
// the user once for each boot of the host: banger doctor has the reason.
func chooseAccel(ctx context.Context, c *bootConfig, cfg *vmm.Config, base string) (vmm.Accel, error) {
	probe := *cfg
	probe.Initrd, probe.Disks, probe.Cmdline = base, nil, []string{guest.ProbeWord}
	accel, why, err := c.monitor.ChooseAccel(ctx, probe, guest.ProbeAnswer, filepath.Join(c.cache, qemu.ProbeFile), string(c.kernel.ID))
	if why != "" && firstInBoot(filepath.Join(c.cache, "kvm-noted")) {
		c.notice("no KVM: machines run several times slower; banger doctor shows the reason")
	}
	return accel, err
}

// firstInBoot reports whether it is called with this path for the first time since the
// host was booted. It keeps the ID of the boot in the file path. If that fails, the
// call counts as the first.
func firstInBoot(path string) bool {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return true
	}
	if noted, err := os.ReadFile(path); err == nil && bytes.Equal(noted, boot) {
		return false
	}
	_ = atomicfile.Write(path, boot, 0o600) // the next start shows the note again
	return true
}

// writeInitramfs writes to path the initramfs base, which all machines of a
// kernel share, followed by the machine's own, which has its keys.
func writeInitramfs(path, base string, gc guest.Config) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write initramfs: %w", err)
		}
	}()
	shared, err := os.Open(base)
	if err != nil {
		return err
	}
	defer shared.Close()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := io.Copy(f, shared); err != nil {
		return err
	}
	return initrd.Machine(f, gc)
}

// baseInitramfs returns the path of the initramfs with the drivers of a kernel,
// and the names of its modules in load order. It makes the initramfs if the
// cache does not have it.
func baseInitramfs(ctx context.Context, cache string, k *kernel.Kernel, drivers []string) (path string, modules []string, err error) {
	program, err := bin.Program()
	if err != nil {
		return "", nil, err
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%d %s %q\n", guest.Version, k.ID, drivers)
	sum.Write(program)
	const short = 32 // hexadecimal digits of a file name
	dir := filepath.Join(cache, "initramfs")
	path = filepath.Join(dir, hex.EncodeToString(sum.Sum(nil))[:short])
	if modules, err = readModuleNames(path); err == nil {
		return path, modules, touch(path)
	}
	loaded, err := k.Modules(ctx, drivers)
	if err != nil {
		return "", nil, fmt.Errorf("kernel %s: %w", k.Release, err)
	}
	parts := make([]initrd.Module, 0, len(loaded))
	for _, mod := range loaded {
		modules = append(modules, mod.Name)
		parts = append(parts, initrd.Module(mod))
	}
	return path, modules, makeInitramfs(dir, path, program, parts)
}

// touch marks a cached initramfs as used, so that pruneInitramfs keeps it.
func touch(path string) error {
	now := time.Now()
	for _, name := range []string{path, path + namesSuffix} {
		if err := os.Chtimes(name, now, now); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("use cached initramfs: %w", err)
		}
	}
	return nil
}

// namesSuffix is the suffix of the file beside a cached initramfs that has the
// names of its modules, one on each line. It is written last.
const namesSuffix = ".modules"

func readModuleNames(path string) ([]string, error) {
	if info, err := os.Stat(path); err != nil || info.Size() == 0 {
		return nil, errors.Join(fs.ErrNotExist, err)
	}
	data, err := os.ReadFile(path + namesSuffix)
	return strings.Fields(string(data)), err
}

func makeInitramfs(dir, path string, program []byte, parts []initrd.Module) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make initramfs: %w", err)
	}
	if err := pruneInitramfs(dir); err != nil {
		return fmt.Errorf("make initramfs: %w", err)
	}
	var b bytes.Buffer
	if err := initrd.Base(&b, program, parts); err != nil {
		return fmt.Errorf("make initramfs: %w", err)
	}
	if b.Len() > maxInitramfsSize {
		return fmt.Errorf("make initramfs: %d bytes are more than %d", b.Len(), maxInitramfsSize)
	}
	if err := atomicfile.Write(path, b.Bytes(), 0o600); err != nil {
		return fmt.Errorf("make initramfs: %w", err)
	}
	var names bytes.Buffer
	for _, part := range parts {
		fmt.Fprintln(&names, part.Name)
	}
	if err := atomicfile.Write(path+namesSuffix, names.Bytes(), 0o600); err != nil {
		return fmt.Errorf("make initramfs: %w", err)
	}
	return nil
}

// pruneInitramfs removes the initramfs that were used longest ago, to make room
// for one more. Those of old kernels and versions would stay for ever otherwise.
func pruneInitramfs(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var infos []fs.FileInfo
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			infos = append(infos, info)
		}
	}
	const filesEach = 2
	slices.SortFunc(infos, func(a, b fs.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	for _, info := range infos[min(len(infos), filesEach*(maxInitramfs-1)):] {
		if err := os.Remove(filepath.Join(dir, info.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
