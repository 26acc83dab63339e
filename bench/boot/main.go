// Command boot measures the time to the first byte of output of a command in a machine:
// with `banger run`, and with QEMU alone, which gets the same kernel, modules and guest
// program and a disk that exists already.
//
//	boot BANGER DATA IMAGE RUNS
//
// DATA is a data folder of banger that has the kernel "default" and IMAGE.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/guest/bin"
	"github.com/banger-vm/banger/internal/guest/client"
	"github.com/banger-vm/banger/internal/guest/initrd"
	"github.com/banger-vm/banger/internal/image/pull"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/kernel"
)

// marker is the output of the command.
const marker = "first-byte"

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "boot:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	if len(args) != 4 {
		return errors.New("usage: boot BANGER DATA IMAGE RUNS")
	}
	runs, err := strconv.Atoi(args[3])
	if err != nil || runs < 1 {
		return fmt.Errorf("runs %q: want a number", args[3])
	}
	dir, err := os.MkdirTemp("", "banger-boot-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	bare, err := prepare(ctx, args[1], args[2], dir)
	if err != nil {
		return err
	}
	var ours, theirs []time.Duration
	for i := range runs + 1 {
		mine, err := firstByte(ctx, exec.CommandContext(ctx, args[0], "--data-root", args[1], "--quiet",
			"run", "--rm", "--accel=tcg", args[2], "/bin/echo", marker))
		if err != nil {
			return fmt.Errorf("banger run: %w", err)
		}
		other, err := firstByte(ctx, exec.CommandContext(ctx, bare[0], bare[1:]...))
		if err != nil {
			return fmt.Errorf("bare QEMU: %w", err)
		}
		if i > 0 { // the first round warms the caches
			ours, theirs = append(ours, mine), append(theirs, other)
		}
	}
	table(os.Stdout, ours, theirs)
	return nil
}

func table(w io.Writer, ours, theirs []time.Duration) {
	fmt.Fprintf(w, "\n**To the first byte of a command's output** (medians of %d, emulation)\n\n", len(ours))
	fmt.Fprintf(w, "| | seconds | fastest to slowest |\n|---|---:|---:|\n")
	for _, row := range []struct {
		name string
		took []time.Duration
	}{{"QEMU alone, same kernel and initramfs", theirs}, {"banger run", ours}} {
		slices.Sort(row.took)
		fmt.Fprintf(w, "| %s | %.2f | %.2f to %.2f |\n", row.name, row.took[len(row.took)/2].Seconds(),
			row.took[0].Seconds(), row.took[len(row.took)-1].Seconds())
	}
	a, b := ours[len(ours)/2], theirs[len(theirs)/2]
	fmt.Fprintf(w, "\nOverhead: %.2f s; 10 %% + 100 ms would be %.2f s.\n", (a - b).Seconds(), b.Seconds()/10+0.1)
}

// firstByte returns the time from the start of a process to the marker in its output. It
// returns when the process has ended.
func firstByte(ctx context.Context, cmd *exec.Cmd) (time.Duration, error) {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	var seen []byte
	chunk := make([]byte, 4096)
	for {
		n, err := out.Read(chunk)
		seen = append(seen, chunk[:n]...)
		if bytes.Contains(seen, []byte(marker)) {
			break
		}
		if err != nil {
			return 0, errors.Join(fmt.Errorf("no output: %w; %s %s", err, seen, stderr.Bytes()), cmd.Wait())
		}
	}
	took := time.Since(start)
	_, err = io.Copy(io.Discard, out)
	// QEMU alone fails: the guest's kernel panics when process 1 ends.
	_ = cmd.Wait()
	return took, errors.Join(err, ctx.Err())
}

// prepare writes the files of the bare machine to dir and returns its command line.
func prepare(ctx context.Context, data, image, dir string) ([]string, error) {
	s, err := store.Open(data)
	if err != nil {
		return nil, err
	}
	img, err := s.Find(image, pull.CanonicalName(image))
	if err != nil {
		return nil, err
	}
	kernels, err := kernel.Open(data)
	if err != nil {
		return nil, err
	}
	kernel, err := kernels.Find(kernel.DefaultName)
	if err != nil {
		return nil, err
	}
	initramfs := filepath.Join(dir, "initramfs")
	if err := writeInitramfs(ctx, initramfs, kernel); err != nil {
		return nil, err
	}
	overlay := filepath.Join(dir, "disk.qcow2")
	if out, err := exec.CommandContext(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", s.DiskPath(img), overlay).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("qemu-img: %w: %s", err, out)
	}
	words := "console=ttyS0 quiet panic=-1 reboot=t nokaslr mitigations=off no_timer_check cryptomgr.notests " +
		"random.trust_cpu=on rcupdate.rcu_expedited=1"
	if khz := hostTSC(); khz > 0 {
		words += " tsc_early_khz=" + strconv.Itoa(khz)
	}
	return []string{
		"qemu-system-x86_64", "-M", "microvm,x-option-roms=off,pit=off,pic=off,rtc=on", "-accel", "tcg,tb-size=128", "-cpu", "max",
		"-global", "virtio-mmio.force-legacy=false", "-m", "512M", "-nodefaults", "-no-user-config", "-nographic", "-no-reboot",
		"-kernel", kernel.BootPath(), "-initrd", initramfs, "-append", words, "-serial", "stdio",
		"-device", "virtio-serial-device", "-chardev", "null,id=agent", "-device", "virtserialport,chardev=agent,name=" + guest.AgentPort,
		"-drive", "if=none,id=root,format=qcow2,file=" + overlay, "-device", "virtio-blk-device,drive=root,serial=" + guest.RootSerial,
		"-drive", "if=none,id=modules,format=raw,readonly=on,file=" + kernel.ModulesDisk(), "-device", "virtio-blk-device,drive=modules,serial=" + guest.ModulesSerial,
	}, nil
}

// writeInitramfs writes the initramfs of banger run, with the command as the image's init,
// so its output goes to the console.
func writeInitramfs(ctx context.Context, path string, kernel *kernel.Kernel) (err error) {
	program, err := bin.Program()
	if err != nil {
		return err
	}
	loaded, err := kernel.Modules(ctx, []string{"virtio_mmio", "virtio_blk", "virtio_console", "ext4"})
	if err != nil {
		return err
	}
	keys, err := client.NewKeys()
	if err != nil {
		return err
	}
	conf := guest.Config{
		Version: guest.Version, Hostname: "bare", Init: guest.InitImage, InitArgs: []string{"/bin/echo", marker},
		ModulesDisk: true, HostKey: keys.HostPrivate, ClientKeys: []string{keys.ClientPublic}, Time: time.Now().UnixNano(),
	}
	var modules []initrd.Module
	for _, m := range loaded {
		conf.Modules = append(conf.Modules, m.Name)
		modules = append(modules, initrd.Module(m))
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := initrd.Base(f, program, modules); err != nil {
		return err
	}
	return initrd.Machine(f, conf)
}

// hostTSC returns the frequency of the time stamp counter in kHz, from /proc/cpuinfo, or
// 0 if the file has none.
func hostTSC() int {
	if runtime.GOARCH != "amd64" {
		return 0
	}
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "bogomips"); ok {
			value, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimLeft(rest, "\t :")), 64)
			if err == nil {
				return int(value / 2 * 1000)
			}
		}
	}
	return 0
}
