package qemu

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/confine"
)

// programFolders hold programs, libraries and their data, and nothing of users.
// A package of QEMU is in one of them. Those that do not exist are left out.
var programFolders = []string{
	"/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin",
	"/nix/store", "/gnu/store", "/home/linuxbrew/.linuxbrew",
}

// readable are the other files that QEMU and its libraries read at their start.
var readable = []string{
	"/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/localtime",
	"/etc/gnutls", "/etc/crypto-policies", "/etc/ssl/openssl.cnf", "/etc/pki/tls/openssl.cnf", "/etc/libnl", "/etc/selinux/config",
	"/proc/cpuinfo", "/proc/filesystems", "/proc/meminfo", "/proc/sys/vm",
	"/sys/devices/system/cpu", "/sys/devices/system/node", "/sys/kernel/mm", "/sys/module/kvm", "/sys/module/kvm_intel", "/sys/module/kvm_amd",
	"/dev/random", "/dev/urandom", "/dev/zero",
}

// besideProgram are the paths, relative to the folder of the program, at which a
// QEMU looks for its libraries and firmware: one that is installed below a
// prefix of its own, and one that runs in its build folder.
var besideProgram = []string{
	"../share/qemu", "../lib", "../lib64", "../libexec",
	"qemu-bundle", "../pc-bios",
}

// isUnusual reports whether a program is outside of programFolders and Folders.
func (m Monitor) isUnusual(program string) bool {
	target, err := filepath.EvalSymlinks(program)
	return err == nil && !slices.ContainsFunc(slices.Concat(programFolders, m.Folders), func(folder string) bool {
		return strings.HasPrefix(target, filepath.Clean(folder)+"/")
	})
}

// explainStart adds to an error at the start of program the remedy if the
// reason may be that program has no right to open a part of itself.
func (m Monitor) explainStart(program string, err error) error {
	_, ended := errors.AsType[*vmm.ExitError](err)
	if err == nil || !ended && !errors.Is(err, fs.ErrPermission) || confine.ABI() == 0 || m.Unconfined || !m.isUnusual(program) {
		return err
	}
	return fmt.Errorf("%w (if %s may not open a part of itself, add its folder to qemu.folders in the configuration file)", err, program)
}

// LandlockABI returns the version of the kernel's Landlock, which restricts
// QEMU, or 0 if the kernel has none.
func LandlockABI() int { return confine.ABI() }

// confinement returns the function that restricts the thread which starts program.
func (m Monitor) confinement(program string, cfg *vmm.Config, f *files) (func() error, error) {
	if m.Unconfined {
		return func() error { return nil }, nil
	}
	rules, err := m.rules(program, cfg, f)
	return func() error { return confine.Thread(rules) }, err
}

// rules returns the files that QEMU may open. All others it gets as
// descriptors. It reopens the kernel and the initramfs by their descriptors'
// paths, so they have a rule.
func (m Monitor) rules(program string, cfg *vmm.Config, f *files) ([]confine.Rule, error) {
	target, err := filepath.EvalSymlinks(program)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", program, err)
	}
	rules := []confine.Rule{{Path: target, Access: confine.Run}, {Path: "/dev/null", Access: confine.ReadWrite}}
	for _, path := range slices.Concat(programFolders, m.Folders) {
		rules = append(rules, confine.Rule{Path: path, Access: confine.Run})
	}
	for _, path := range besideProgram {
		rules = append(rules, confine.Rule{Path: filepath.Join(filepath.Dir(target), path), Access: confine.Run})
	}
	for _, path := range readable {
		rules = append(rules, confine.Rule{Path: path, Access: confine.Read})
	}
	for _, fd := range []int{kernelFD, initrdFD} {
		rules = append(rules, confine.Rule{File: f.inherited[fd-kernelFD], Access: confine.Read})
	}
	if cfg.Accel == vmm.KVM {
		rules = append(rules, confine.Rule{Path: m.kvmDevice(), Access: confine.ReadWrite})
	}
	return rules, nil
}
