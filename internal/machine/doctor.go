package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/machine/disk"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/repair"
	"github.com/banger-vm/banger/internal/machine/spec"
	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/qemu"
)

// Examine checks the host and the machines, and changes nothing.
func (s *Store) Examine(ctx context.Context) (repair.Report, error) {
	r, err := repair.Examine(ctx, s.root)
	r.Checks = []repair.Check{
		checkMonitor(ctx), s.checkKVM(), checkConfinement(qemu.LandlockABI(), s.Unconfined), checkDisks(ctx, s.root), checkRuntime(s.root),
		checkFree(s.root, &s.Limits), checkMemory(),
	}
	return r, err
}

func check(name string, level repair.Level, detail, fix string) repair.Check {
	return repair.Check{Name: name, Level: level, Detail: detail, Fix: fix}
}

// checkMonitor checks that QEMU is installed and recent enough.
func checkMonitor(ctx context.Context) repair.Check {
	path, version, err := qemu.Monitor{}.Find(ctx)
	switch {
	case errors.Is(err, vmm.ErrMissing):
		return check("qemu", repair.LevelError, err.Error(), "install it: apt install qemu-system-x86 qemu-utils")
	case err != nil:
		return check("qemu", repair.LevelError, err.Error(), "install it anew: apt install --reinstall qemu-system-x86")
	}
	c := check("qemu", repair.LevelOK, path+", version "+version, "")
	if !isRecent(version) {
		c.Level, c.Fix = repair.LevelError, "install version 7.2 or newer"
	}
	return c
}

// isRecent reports whether a version of QEMU has all features that machines need.
func isRecent(version string) bool {
	const major, minor = 7, 2
	parts := strings.Split(version, ".")
	if len(parts) < 2 {
		return false
	}
	first, err := strconv.Atoi(parts[0])
	second, minorErr := strconv.Atoi(parts[1])
	return err == nil && minorErr == nil && (first > major || first == major && second >= minor)
}

// checkConfinement reports how far a QEMU of the ABI version of Landlock is kept
// from what its user can reach; 0 stands for a kernel without it.
func checkConfinement(abi int, off bool) repair.Check {
	const tcp, signals = 4, 6 // landlock(7), "VERSIONS"
	c := check("confinement", repair.LevelOK, fmt.Sprintf("Landlock (version %d) keeps QEMU from other files", abi), "")
	switch {
	case off:
		return check("confinement", repair.LevelWarning,
			"QEMU is not confined: a guest that takes it over can open the files that QEMU's user can",
			"remove confine from [qemu] in the configuration file")
	case abi == 0:
		return check("confinement", repair.LevelWarning,
			"this kernel has no Landlock: a guest that takes over its QEMU can open the files that QEMU's user can",
			"boot a kernel from 5.13 on that has CONFIG_SECURITY_LANDLOCK, with landlock in lsm= on its command line")
	case abi >= signals:
		c.Detail += ", TCP and other processes"
	case abi >= tcp:
		c.Detail += " and TCP"
	}
	return c
}

// checkKVM checks whether machines run with KVM. A device that can be opened may still
// boot no machine: the last start of one has tried it.
func (s *Store) checkKVM() repair.Check {
	c := checkKVM("/dev/kvm")
	if c.Level != repair.LevelOK || s.Cache == "" {
		return c
	}
	accel, why, err := qemu.Monitor{}.KnownAccel(filepath.Join(s.Cache, qemu.ProbeFile))
	switch {
	case err != nil || accel == "":
		c.Detail += "; the first run tries whether it works"
	case accel == vmm.KVM:
		c.Detail = "a machine has booted with it"
	default:
		c.Level, c.Detail = repair.LevelWarning, "machines are emulated, which is slow: "+why
		c.Fix = "in a virtual machine, allow nesting; banger run --accel=kvm IMAGE tries it again"
	}
	return c
}

// checkKVM checks the device of KVM. Machines run without it, but slowly.
func checkKVM(device string) repair.Check {
	c := repair.Check{Name: "kvm", Level: repair.LevelWarning}
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.Detail = device + " is not there: machines are emulated, which is slow"
		c.Fix = "switch virtualization on in the firmware and load kvm_intel or kvm_amd; in a virtual machine, allow nesting"
		return c
	case errors.Is(err, fs.ErrPermission):
		c.Detail = "this user may not open " + device + ": machines are emulated, which is slow"
		c.Fix = joinGroup(device)
		return c
	case err != nil:
		c.Detail = err.Error()
		return c
	}
	defer f.Close()
	const getVersion, stable = 0xae00, 12 // KVM_GET_API_VERSION, KVM_API_VERSION of linux/kvm.h
	version, err := unix.IoctlRetInt(int(f.Fd()), getVersion)
	if err != nil || version != stable {
		c.Detail = fmt.Sprintf("%s does not answer as KVM does (version %d, %v)", device, version, err)
		return c
	}
	c.Level, c.Detail = repair.LevelOK, device+" can be opened"
	return c
}

// joinGroup returns advice to a user who may not open a device.
func joinGroup(device string) string {
	info, err := os.Stat(device)
	if err != nil {
		return ""
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode().Perm()&0o060 != 0o060 || st.Gid == 0 {
		return "let a group of this user read and write " + device
	}
	name := strconv.FormatUint(uint64(st.Gid), 10)
	if g, err := user.LookupGroupId(name); err == nil {
		name = g.Name
	}
	return "join its group and log in again: sudo usermod -aG " + name + " $USER"
}

// checkDisks reports which disk drivers work, and which one Auto selects.
func checkDisks(ctx context.Context, root *record.Root) repair.Check {
	c := repair.Check{Name: "disks", Level: repair.LevelError, Fix: "see what each of them needs"}
	var words []string
	for _, d := range disk.Probe(ctx, root.Machines()) {
		word := string(d.Driver) + " does not work"
		switch {
		case d.Auto:
			word = string(d.Driver) + " is taken"
			c.Level, c.Fix = repair.LevelOK, ""
		case d.Usable:
			word = string(d.Driver) + " works"
		}
		words = append(words, word+" ("+d.Why+")")
	}
	c.Detail = strings.Join(words, ", ")
	return c
}

// checkRuntime checks that other users cannot enter the runtime folder.
func checkRuntime(root *record.Root) repair.Check {
	if err := record.CheckPrivate(root.Runtime()); err != nil {
		return check("runtime", repair.LevelError, err.Error(), "chmod 700 "+root.Runtime())
	}
	return check("runtime", repair.LevelOK, root.Runtime()+" is private", "")
}

// checkFree checks that the file system has space for a new machine.
func checkFree(root *record.Root, limits *Limits) repair.Check {
	free, inodes, err := freeSpace(root.Machines())
	if err != nil {
		return check("space", repair.LevelError, err.Error(), "")
	}
	c := check("space", repair.LevelOK, fmt.Sprintf("%d MiB are free in %s", free>>20, root.Machines()), "")
	if err := limits.checkSpace(root.Machines()); err != nil {
		c.Level, c.Fix = repair.LevelError, "free some: banger prune and banger image prune remove what is not needed"
		if inodes == 0 {
			c.Detail = "no inode is free in " + root.Machines()
		}
	}
	return c
}

// checkMemory checks that the host has memory for a machine of the default size.
func checkMemory() repair.Check {
	total, available, err := hostMemory()
	if err != nil {
		return check("memory", repair.LevelWarning, err.Error(), "")
	}
	c := check("memory", repair.LevelOK, fmt.Sprintf("%d of %d MiB are available", available>>20, total>>20), "")
	if available < spec.DefaultMemory {
		c.Level = repair.LevelWarning
	}
	return c
}
