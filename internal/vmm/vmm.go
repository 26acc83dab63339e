// Package vmm describes a machine to a virtual machine monitor: its kernel,
// memory, disks and channels, in terms that QEMU, Firecracker and Cloud
// Hypervisor share. A subpackage starts and controls the process of one
// monitor, such as vmm/qemu. The package does not know images, the programs
// inside a machine, or the place where machines are stored.
package vmm

import (
	"errors"
	"io"
	"strconv"
)

// A Model is a machine's set of devices and buses.
type Model string

const (
	// MicroVM has virtio-mmio devices and no PCI bus. It boots fastest.
	MicroVM Model = "microvm"
	// Q35 is a PC with PCI Express.
	Q35 Model = "q35"
)

// An Accel is the means by which the guest's instructions are executed.
type Accel string

// The accelerators.
const (
	KVM Accel = "kvm" // the host's processor
	TCG Accel = "tcg" // QEMU's translator
)

// Format is the format of a disk's file.
type Format string

// The formats of disks.
const (
	Raw   Format = "raw"
	QCOW2 Format = "qcow2"
)

// Config is the configuration of one machine. Paths are host paths.
type Config struct {
	Name   string // shown in process lists: letters, digits, '-', '_', '.'
	Model  Model
	Accel  Accel
	CPUs   int
	Memory int64 // bytes

	Kernel  string // ELF with a PVH note, or bzImage
	Initrd  string
	Cmdline []string // further words of the kernel's command line
	Disks   []Disk
	// AgentPort is the name of the guest's serial port for the agent. DialAgent
	// connects to it.
	AgentPort string

	// Dir is a private folder of the caller for sockets, mode 0700.
	Dir string
	// Console receives the guest's console output. A Write that blocks makes
	// the guest wait.
	Console io.Writer
	// Env is the environment of the process, which inherits nothing from its
	// owner otherwise.
	Env []string
}

// A Disk is a virtio block device.
type Disk struct {
	Serial   string // shown to the guest, at most 20 bytes
	Path     string
	Format   Format
	Backing  string // raw file under a QCOW2 overlay, opened read-only
	ReadOnly bool
	Device   bool // Path is a block device of the host
}

// ErrMissing is returned if the monitor's program is not installed.
var ErrMissing = errors.New("virtual machine monitor not found")

// An ExitError is the end of a monitor's process that failed.
type ExitError struct {
	Code   int    // -1 if a signal ended the process
	Signal string // name of the signal, or ""
	Output string // end of the process's standard error
}

func (e *ExitError) Error() string {
	text := "ended with code " + strconv.Itoa(e.Code)
	if e.Signal != "" {
		text = "killed by " + e.Signal
	}
	if e.Output != "" {
		text += ": " + e.Output
	}
	return "virtual machine monitor " + text
}
