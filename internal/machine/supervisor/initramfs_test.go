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
	for range 2 { // the note comes once for each boot of the host, and not for each start
		if again, err := chooseAccel(t.Context(), &c, &cfg, kernel); again != accel || err != nil {
			t.Errorf("accelerator %q, %v", again, err)
		}
	}
	_, why, knownErr := c.monitor.KnownAccel(filepath.Join(dir, qemu.ProbeFile))
	if knownErr != nil || !strings.Contains(why, "no machine") || !strings.Contains(why, " "+guest.ProbeWord) {
		t.Errorf("known are %q, %v: want %s on the kernel's command line", why, knownErr, guest.ProbeWord)
	}
	if err != nil || accel != vmm.TCG || len(notices) != 1 || len(notices[0]) > 80 || !strings.Contains(notices[0], "banger doctor") {
		t.Fatalf("accelerator %q, %v, notices %q", accel, err, notices)
	}
}
