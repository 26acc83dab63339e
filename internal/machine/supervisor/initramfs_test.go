package supervisor

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/machine/spec"
	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/qemu"
)

// TestChooseAccelAsksTheGuest checks that a probe of KVM boots the kernel with the word that the guest program
// recognizes. The stand-in for QEMU prints its arguments and fails, so KVM does not work.
func TestChooseAccelAsksTheGuest(t *testing.T) {
	dir := t.TempDir()
	program, device := filepath.Join(dir, "qemu"), filepath.Join(dir, "kvm")
	script := "#!/bin/sh\necho no machine \"$@\" >&2\nexit 1\n"
	for path, content := range map[string]string{program: script, device: "", filepath.Join(dir, "kernel"): "kernel"} {
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// If the test runs as root, the stand-in runs as another user.
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	var notices []string
	c := bootConfig{
		kernel: new(kernel.Kernel), cache: dir, monitor: qemu.Monitor{Path: program, KVM: device},
		notice: func(text string) { notices = append(notices, text) },
	}
	kernel := filepath.Join(dir, "kernel")
	cfg := vmm.Config{Name: "test", Model: vmm.MicroVM, CPUs: 1, Memory: spec.MinMemory, Kernel: kernel, Initrd: kernel, Dir: dir}
	accel, err := chooseAccel(t.Context(), &c, &cfg, kernel)
	if err != nil || accel != vmm.TCG || len(notices) != 1 || !strings.Contains(notices[0], "no machine") {
		t.Fatalf("accelerator %q, %v, notices %q", accel, err, notices)
	}
	if !strings.Contains(notices[0], " "+guest.ProbeWord) {
		t.Errorf("notice %q: want %s on the kernel's command line", notices[0], guest.ProbeWord)
	}
}
