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
	// Path is the program. "" is the one for the host's architecture in $PATH.
	Path string
	// KVM is the device of the kernel's KVM. "" is /dev/kvm.
	KVM string
	// Folders are absolute paths of files and folders, besides the usual ones,
	// that QEMU may read and run, such as those of a QEMU in an unusual place.
	Folders []string
	// Unconfined starts QEMU without the restrictions of package confine, for
	// example under a debugger.
	Unconfined bool
	// ProbeTimeout is the time limit for the machine that ChooseAccel boots. 0
	// is defaultProbeTimeout.
	ProbeTimeout time.Duration
}

// Find returns QEMU's path and version. It returns vmm.ErrMissing if QEMU is
// not installed.
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

// program returns the absolute path of QEMU.
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
		if m.Path == "" { // of the daemon, whose environment need not be the user's
			name += " in PATH=" + os.Getenv("PATH")
		}
		return "", fmt.Errorf("find %s: %w", name, vmm.ErrMissing)
	}
	if err != nil {
		return "", fmt.Errorf("find %s: %w", name, err)
	}
	return filepath.Abs(path)
}

// environment returns the environment of QEMU. It inherits no variables from
// its owner. The package parses its messages, so they must not be translated.
func environment() []string { return []string{"LC_ALL=C"} }
