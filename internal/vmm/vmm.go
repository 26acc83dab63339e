// Package vmm describes a machine to a virtual machine monitor: its kernel,
// memory, disks and channels, in terms that QEMU, Firecracker and Cloud
// Hypervisor share. What starts and controls the process of one of them is a
// subpackage, such as vmm/qemu. The package knows nothing of images, of what
// runs inside a machine, or of where machines are kept.
package vmm

import (
	"errors"
	"io"
	"strconv"
	"time"
)

// A Model is the set of devices and buses of a machine.
type Model string

const (
	// MicroVM has virtio-mmio devices and no PCI bus: the fastest to boot.
	MicroVM Model = "microvm"
	// Q35 is a PC with PCI Express.
	Q35 Model = "q35"
)

// An Accel is what executes the guest's instructions.
type Accel string

// The accelerators.
const (
	KVM Accel = "kvm" // the processor
	TCG Accel = "tcg" // QEMU's translator
)

// Format is how a disk's file stores its blocks.
type Format string

// The formats of disks.
const (
	Raw   Format = "raw"
	QCOW2 Format = "qcow2"
)

// Config is one machine. Paths are host paths.
type Config struct {
	Name   string // shown in lists of processes: letters, digits, '-', '_', '.'
	Model  Model
	Accel  Accel
	CPUs   int
	Memory int64 // bytes

	Kernel  string // ELF with a PVH note, or bzImage
	Initrd  string
	Cmdline []string // words of the kernel's command line besides those that the monitor's devices need
	Disks   []Disk
	// AgentPort is the name of the guest's serial port that DialAgent of the
	// machine connects with.
	AgentPort string

	// Dir is a private folder of the caller, mode 0700, for sockets.
	Dir string
	// Console gets what the guest writes to its console, as it comes. Writes
	// that block hold the guest up.
	Console io.Writer
	// Env is added to the process's environment, which has nothing of its
	// owner's.
	Env []string
}

// A Disk is a virtio block device.
type Disk struct {
	Serial   string // as the guest sees it, at most 20 bytes
	Path     string
	Format   Format
	Backing  string // of a QCOW2 overlay: the raw file under it, opened read-only
	ReadOnly bool
	Device   bool // Path is a block device of the host's, not a file
}

// ErrMissing says that the monitor's program is not installed.
var ErrMissing = errors.New("virtual machine monitor not found")

// An ExitError is how a monitor's process ended when that was not in order.
type ExitError struct {
	Code   int    // -1 when a signal ended it
	Signal string // its name, or ""
	Output string // the tail of what the process wrote to standard error
}

func (e *ExitError) Error() string {
	what := "ended with code " + strconv.Itoa(e.Code)
	if e.Signal != "" {
		what = "killed by " + e.Signal
	}
	if e.Output != "" {
		what += ": " + e.Output
	}
	return "virtual machine monitor " + what
}

// ProbeLimit is how long a machine under KVM may take to show that it runs.
const ProbeLimit = 10 * time.Second
