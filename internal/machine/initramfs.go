package machine

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
)

// maxInitramfs is how many are kept in the cache, and maxInitramfsSize what
// one may have in bytes.
const (
	maxInitramfs     = 8
	maxInitramfsSize = 256 << 20
)

// drivers are the kernel modules that a machine's devices need.
func drivers(model vmm.Model) []string {
	common := []string{"virtio_blk", "virtio_console", "ext4"}
	if model == vmm.Q35 {
		return append([]string{"virtio_pci"}, common...)
	}
	return append([]string{"virtio_mmio"}, common...)
}

// prepare makes what the monitor needs to start the machine, but for its disk.
func (m *Machine) prepare(ctx context.Context, h *Host) (cfg *vmm.Config, keys client.Keys, err error) {
	watcher := h.Console
	if !m.HasMain() && h.Out != nil {
		watcher = h.Out
	}
	if m.console, err = openConsole(m.dir.data, watcher); err != nil {
		return nil, keys, err
	}
	if keys, err = client.NewKeys(); err != nil {
		return nil, keys, err
	}
	conf := &m.Record.Config
	base, modules, err := baseInitramfs(ctx, h.Cache, h.Kernel, conf.Model)
	if err != nil {
		return nil, keys, err
	}
	gc := m.guestConfig(keys, modules)
	cfg = &vmm.Config{
		Name: conf.Name, Model: conf.Model, Accel: h.Accel, CPUs: conf.CPUs, Memory: conf.Memory,
		Kernel: h.Kernel.BootPath(), Initrd: filepath.Join(m.dir.runtime, "initramfs"),
		AgentPort: guest.AgentPort, Dir: m.dir.runtime, Console: m.console,
	}
	if m.Record.Plan.Init == guest.InitImage {
		// systemd would wait 90 s for a login terminal that udev never
		// announces, and rename the network device that the host knows.
		cfg.Cmdline = []string{"systemd.getty_auto=0", "net.ifnames=0"}
	}
	if disk := h.Kernel.ModulesDisk(); disk != "" {
		gc.ModulesDisk = true
		cfg.Disks = []vmm.Disk{{Serial: guest.ModulesSerial, Path: disk, Format: vmm.Raw, ReadOnly: true}}
	}
	if cfg.Accel == "" {
		if cfg.Accel, err = chooseAccel(ctx, h, cfg, base); err != nil {
			return nil, keys, err
		}
	}
	if gc.Entropy, err = entropy(); err != nil {
		return nil, keys, err
	}
	gc.Time = time.Now().UnixNano()
	return cfg, keys, writeInitramfs(cfg.Initrd, base, gc)
}

func entropy() ([]byte, error) {
	const size = 64 // bytes: twice what the kernel's generator is keyed with
	b := make([]byte, size)
	_, err := rand.Read(b)
	return b, err
}

func chooseAccel(ctx context.Context, h *Host, cfg *vmm.Config, base string) (vmm.Accel, error) {
	probe := *cfg
	probe.Initrd, probe.Disks, probe.Cmdline = base, nil, []string{guest.ProbeWord}
	accel, notice, err := h.Monitor.ChooseAccel(ctx, probe, guest.ProbeAnswer, filepath.Join(h.Cache, "kvm.json"), string(h.Kernel.ID))
	if notice != "" {
		h.notice("%s", notice)
	}
	return accel, err
}

// writeInitramfs joins the part that all machines of a kernel share with the
// machine's own, which holds its keys.
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

// baseInitramfs returns the initramfs for machines of a kernel and a model,
// from the cache where it is there, and the names of its modules in the order
// in which they load.
func baseInitramfs(ctx context.Context, cache string, k *kernel.Kernel, model vmm.Model) (path string, modules []string, err error) {
	program, err := bin.Program()
	if err != nil {
		return "", nil, err
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%d %s %s %q\n", guest.Version, k.ID, model, drivers(model))
	sum.Write(program)
	const short = 32 // digits of a name
	dir := filepath.Join(cache, "initramfs")
	path = filepath.Join(dir, hex.EncodeToString(sum.Sum(nil))[:short])
	if modules, err = readModuleNames(path); err == nil {
		return path, modules, touch(path)
	}
	loaded, err := k.Modules(ctx, drivers(model))
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

// touch keeps what is in use from being the oldest.
func touch(path string) error {
	now := time.Now()
	for _, name := range []string{path, path + namesSuffix} {
		if err := os.Chtimes(name, now, now); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("use cached initramfs: %w", err)
		}
	}
	return nil
}

// namesSuffix is that of the file beside a cached initramfs which has the
// names of its modules, a line each. It is written last.
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

// pruneInitramfs makes room for one more: those of kernels and versions past
// would stay for ever.
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
