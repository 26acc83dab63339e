package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/banger-vm/banger/internal/vmm"
)

// A Monitor is an installed QEMU. The zero value is the one in $PATH.
type Monitor struct {
	// Path is the program; "" looks for the one of the host's architecture.
	Path string
	// KVM is the device that says whether the kernel has KVM; "" is /dev/kvm.
	KVM string
	// ProbeLimit is how long ChooseAccel lets a machine under KVM take; 0 is
	// vmm.ProbeLimit.
	ProbeLimit time.Duration
}

// Find says where QEMU is and which version it is. The error is
// vmm.ErrMissing where there is none.
func (m Monitor) Find(ctx context.Context) (path, version string, err error) {
	const limit = 10 * time.Second
	path, err = m.program()
	if err != nil {
		return "", "", err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.Env = environment()
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return "", "", fmt.Errorf("ask %s for its version: %w", path, err)
	}
	// QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)
	line, _, _ := strings.Cut(string(out), "\n")
	_, version, found := strings.Cut(line, " version ")
	if !found {
		return "", "", fmt.Errorf("ask %s for its version: it says %.80q", path, line)
	}
	return path, strings.TrimSpace(version), nil
}

// program is the absolute path of QEMU.
func (m Monitor) program() (string, error) {
	name := m.Path
	if name == "" {
		if runtime.GOARCH != "amd64" {
			return "", fmt.Errorf("run machines on %s: only amd64 is supported", runtime.GOARCH)
		}
		name = "qemu-system-x86_64"
	}
	path, err := exec.LookPath(name)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("find %s: %w", name, vmm.ErrMissing)
	}
	if err != nil {
		return "", fmt.Errorf("find %s: %w", name, err)
	}
	return filepath.Abs(path)
}

// environment is all that QEMU learns of its owner's: its messages are read
// here and must not come translated.
func environment() []string { return []string{"LC_ALL=C"} }
