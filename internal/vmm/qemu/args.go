package qemu

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/banger-vm/banger/internal/vmm"
)

// The file descriptors that QEMU inherits, in the order of exec.Cmd.ExtraFiles.
// Those of the disks follow, each Backing after its Path.
const (
	kernelFD = iota + 3
	initrdFD
	qmpFD
	consoleFD
	agentFD
	firstDiskFD
)

// translationCache is the size of TCG's translation cache in MiB. QEMU's
// default is a quarter of the host's memory; a boot and a shell fit into this
// size.
const translationCache = 128

const mebibyte = 1 << 20

// wordForm matches the strings that need no escaping in a QEMU option.
var wordForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// checkConfig returns an error if QEMU would misinterpret a value of cfg.
func checkConfig(cfg *vmm.Config) error {
	switch {
	case cfg.Model != vmm.MicroVM && cfg.Model != vmm.Q35:
		return fmt.Errorf("machine model %q: want %s or %s", cfg.Model, vmm.MicroVM, vmm.Q35)
	case cfg.Accel != vmm.KVM && cfg.Accel != vmm.TCG:
		return fmt.Errorf("accelerator %q: want %s or %s", cfg.Accel, vmm.KVM, vmm.TCG)
	case cfg.CPUs < 1:
		return fmt.Errorf("%d processors: want 1 or more", cfg.CPUs)
	case cfg.Memory < mebibyte || cfg.Memory%mebibyte != 0:
		return fmt.Errorf("memory of %d bytes: want a multiple of 1 MiB", cfg.Memory)
	case cfg.Name != "" && !wordForm.MatchString(cfg.Name):
		return fmt.Errorf("machine name %q: want letters, digits, '_', '.' and '-'", cfg.Name)
	case cfg.AgentPort != "" && !wordForm.MatchString(cfg.AgentPort):
		return fmt.Errorf("name of serial port %q: want letters, digits, '_', '.' and '-'", cfg.AgentPort)
	}
	seen := make(map[string]bool)
	for _, d := range cfg.Disks {
		if err := checkDisk(d); err != nil {
			return err
		}
		if seen[d.Serial] {
			return fmt.Errorf("disk %s: two disks have this serial number", d.Serial)
		}
		seen[d.Serial] = true
	}
	return nil
}

func checkDisk(d vmm.Disk) error {
	const maxSerial = 20 // VIRTIO_BLK_ID_BYTES of linux/virtio_blk.h
	switch {
	case !wordForm.MatchString(d.Serial) || len(d.Serial) > maxSerial:
		return fmt.Errorf("disk serial number %q: want letters, digits, '_', '.' and '-', at most %d", d.Serial, maxSerial)
	case d.Format != vmm.Raw && d.Format != vmm.QCOW2:
		return fmt.Errorf("disk %s: format %q: want %s or %s", d.Serial, d.Format, vmm.Raw, vmm.QCOW2)
	case d.Format == vmm.Raw && d.Backing != "":
		return fmt.Errorf("disk %s: a raw disk has no backing file", d.Serial)
	case d.Format == vmm.QCOW2 && d.Device:
		return fmt.Errorf("disk %s: format %s on a device", d.Serial, d.Format)
	}
	return nil
}

// arguments returns QEMU's command line without the program. It depends only on
// cfg and on tscKHz, the frequency of the host's time stamp counter (0 if there
// is none).
func arguments(cfg *vmm.Config, tscKHz int) ([]string, error) {
	if err := checkConfig(cfg); err != nil {
		return nil, err
	}
	cmdline, err := cmdline(cfg, tscKHz)
	if err != nil {
		return nil, err
	}
	name := cfg.Name
	if name == "" {
		name = "banger"
	}
	args := []string{"-name", name}
	args = append(args, machineArgs(cfg)...)
	args = append(args,
		"-m", strconv.FormatInt(cfg.Memory/mebibyte, 10)+"M",
		"-smp", strconv.Itoa(cfg.CPUs),
		"-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none", "-no-reboot",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-kernel", descriptorPath(kernelFD), "-initrd", descriptorPath(initrdFD), "-append", cmdline,
		// The owner has connected to the socket already. QEMU accepts the
		// connection before the guest runs, so no output is lost.
		"-chardev", fmt.Sprintf("socket,id=console,fd=%d,server=on,wait=on", consoleFD),
		"-serial", "chardev:console",
		"-chardev", fmt.Sprintf("socket,id=qmp,fd=%d,server=on,wait=off", qmpFD),
		"-mon", "chardev=qmp,mode=control")
	if cfg.AgentPort != "" {
		args = append(args,
			"-device", device(cfg.Model, "virtio-serial"),
			"-chardev", fmt.Sprintf("socket,id=agent,fd=%d,server=on,wait=off", agentFD),
			"-device", "virtserialport,chardev=agent,name="+cfg.AgentPort)
	}
	disks, err := diskArgs(cfg)
	return append(args, disks...), err
}

func machineArgs(cfg *vmm.Config) []string {
	// Both models omit the devices that Linux does not need. ACPI stays: a
	// kernel without CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES (Debian's) finds the
	// devices by it and powers off by it. The guest's memory is kept out of
	// core dumps.
	args := []string{"-M", "q35,usb=off,sata=off,smbus=off,vmport=off,dump-guest-core=off"}
	if cfg.Model == vmm.MicroVM {
		// The firmware, qboot, loads both kernel formats without the option
		// ROMs. Linux uses modern virtio-mmio only if force-legacy is off.
		args = []string{"-M", "microvm,x-option-roms=off,pit=off,pic=off,rtc=on,dump-guest-core=off",
			"-global", "virtio-mmio.force-legacy=false"}
	}
	if cfg.Accel == vmm.KVM {
		return append(args, "-accel", "kvm", "-cpu", "host")
	}
	return append(args, "-accel", fmt.Sprintf("tcg,tb-size=%d", translationCache), "-cpu", "max")
}

// device returns the name of a virtio device on the model's bus.
func device(model vmm.Model, name string) string {
	if model == vmm.MicroVM {
		return name + "-device"
	}
	return name + "-pci"
}

// A blockNode is the argument of -blockdev; see BlockdevOptions in QEMU's QMP
// reference. Its fields have the order of the output.
type blockNode struct {
	Driver   string          `json:"driver"`
	NodeName string          `json:"node-name"`
	Filename string          `json:"filename,omitempty"`
	File     string          `json:"file,omitempty"`
	Backing  json.RawMessage `json:"backing,omitempty"`
	ReadOnly bool            `json:"read-only"`
	Discard  string          `json:"discard,omitempty"`
}

// The block drivers for file descriptors. Each refuses the other's file type.
const (
	fileDriver   = "file"
	deviceDriver = "host_device"
)

// diskArgs returns the arguments for the disks: their file descriptors, block
// nodes and devices. QEMU locks the files by default, so a second writer is
// refused.
func diskArgs(cfg *vmm.Config) ([]string, error) {
	var args []string
	fd := firstDiskFD
	node := func(driver, name string, readOnly bool, more blockNode) error {
		more.Driver, more.NodeName, more.ReadOnly = driver, name, readOnly
		if !readOnly {
			more.Discard = "unmap"
		}
		if driver == fileDriver || driver == deviceDriver {
			args = append(args, "-add-fd", fmt.Sprintf("fd=%d,set=%d", fd, fd))
			more.Filename = fmt.Sprintf("/dev/fdset/%d", fd)
			fd++
		}
		text, err := json.Marshal(more)
		args = append(args, "-blockdev", string(text))
		return err
	}
	for i, d := range cfg.Disks {
		top := fmt.Sprintf("disk%d", i)
		backing := json.RawMessage("null") // no backing file, even if the overlay's header has one
		driver := fileDriver
		if d.Device {
			driver = deviceDriver
		}
		if err := node(driver, top+"-file", d.ReadOnly, blockNode{}); err != nil {
			return nil, err
		}
		if d.Backing != "" {
			base := top + "-base"
			if err := node(fileDriver, base+"-file", true, blockNode{}); err != nil {
				return nil, err
			}
			if err := node("raw", base, true, blockNode{File: base + "-file"}); err != nil {
				return nil, err
			}
			backing = json.RawMessage(strconv.Quote(base))
		}
		over := blockNode{File: top + "-file"}
		if d.Format == vmm.QCOW2 {
			over.Backing = backing
		}
		if err := node(string(d.Format), top, d.ReadOnly, over); err != nil {
			return nil, err
		}
		args = append(args, "-device", device(cfg.Model, "virtio-blk")+",drive="+top+",serial="+d.Serial)
	}
	return args, nil
}

// descriptorPath returns a path by which a process can reopen its descriptor.
func descriptorPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// cmdline returns the kernel's command line.
func cmdline(cfg *vmm.Config, tscKHz int) (string, error) {
	// COMMAND_LINE_SIZE of x86's asm/setup.h, without the final zero byte.
	const limit = 2047
	// A panic resets at once by a triple fault, which works on every machine,
	// and -no-reboot turns a reset into the end of QEMU.
	words := []string{"console=ttyS0", "quiet", "panic=-1", "reboot=t"}
	if cfg.Accel == vmm.TCG {
		words = append(words, tcgWords(tscKHz)...)
	}
	for _, word := range cfg.Cmdline {
		if word == "" || strings.ContainsFunc(word, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			return "", fmt.Errorf("word %q of the kernel's command line: want printable ASCII without spaces", word)
		}
		words = append(words, word)
	}
	line := strings.Join(words, " ")
	if len(line) > limit {
		return "", fmt.Errorf("kernel command line of %d bytes: at most %d", len(line), limit)
	}
	return line, nil
}

// tcgWords returns kernel parameters with which Linux boots, and boots faster,
// on an emulated processor. Some of them disable protections that have a
// purpose only on a real processor, so they are not used with KVM.
func tcgWords(tscKHz int) []string {
	words := []string{"nokaslr", "mitigations=off", "no_timer_check", "cryptomgr.notests",
		"random.trust_cpu=on", "rcupdate.rcu_expedited=1"}
	if tscKHz > 0 {
		// The guest's counter is the host's. Linux would measure it against
		// timers that emulation delays, and mark it as unstable. On microvm,
		// which has no other clock source, most boots then hang.
		words = append(words, "tsc_early_khz="+strconv.Itoa(tscKHz))
	}
	return words
}
