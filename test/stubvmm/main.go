// Command stubvmm replaces QEMU in tests that need many machines, or a machine within milliseconds. It parses the
// command line and uses the descriptors that package vmm/qemu passes to QEMU, speaks the part of QMP that banger uses,
// and is killed with its owner. Instead of a guest it runs banger's agent, which runs commands on the host, as root, in
// a PID namespace that ends with the stub, as a guest's processes end with their machine.
//
// It is installed as qemu-system-x86_64 in a folder of its own, set-user-ID root: banger starts QEMU as a user without
// privileges, and an agent that is not root cannot run commands.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// guestName is argv[0] of the process that stands for the guest.
const guestName = "stubvmm-guest"

func main() {
	run := machine
	if os.Args[0] == guestName {
		run = runGuest
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "stubvmm:", err)
		os.Exit(1)
	}
}

// machine runs the process that stands for QEMU.
func machine() error {
	if slices.Contains(os.Args[1:], "--version") {
		fmt.Fprintln(os.Stdout, "QEMU emulator version 9.9.9 (stub)")
		return nil
	}
	runtime.LockOSThread() // the kernel kills the guest when the thread that started it ends
	if err := becomeRoot(); err != nil {
		return err
	}
	if err := dieWithOwner(); err != nil {
		return err
	}
	hw, err := parseHardware(os.Args[1:])
	if err != nil {
		return err
	}
	console, err := accept(hw.console)
	if err != nil {
		return err
	}
	cmd, err := startGuest(hw, console)
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // the console shows how it ended
	}()
	return monitor(hw.qmp, cmd.Process, ended)
}

// becomeRoot sets all user and group IDs to root. If the real user ID differed from the effective one, the kernel would
// not kill the guest with this process, nor this process with its owner.
func becomeRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("not root: install it owned by root, with mode 4755")
	}
	return errors.Join(syscall.Setresgid(0, 0, 0), syscall.Setresuid(0, 0, 0))
}

// dieWithOwner requests again that the kernel kills this process with its owner, since the start of a set-user-ID program
// cancels the owner's request. It returns an error if the owner has ended before.
func dieWithOwner() error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("follow owner: %w", err)
	}
	parent, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", os.Getppid()))
	if err != nil || !strings.Contains(string(parent), "banger") {
		return fmt.Errorf("follow owner: it is %q, not banger: %w", parent, err)
	}
	return nil
}

// startGuest starts the guest with the machine's console, its port, and the initramfs.
func startGuest(hw *hardware, console *os.File) (*exec.Cmd, error) {
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe") // Pdeathsig ends it with this process
	cmd.Args = append([]string{guestName}, strings.Fields(hw.cmdline)...)
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{console, os.NewFile(uintptr(hw.agent), "agent"), os.NewFile(uintptr(hw.initrd), "initrd")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start guest: %w", err)
	}
	return cmd, nil
}
