package qemu_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/qemu"
)

// loopDevice returns a block device of the host, backed by a file that begins
// with text.
func loopDevice(t *testing.T, text string) (device, file string) {
	t.Helper()
	missing := ""
	if os.Geteuid() != 0 {
		missing = "root"
	} else if _, err := exec.LookPath("losetup"); err != nil {
		missing = err.Error()
	}
	if missing != "" && os.Getenv("CI") == "true" {
		t.Fatal("the test needs ", missing)
	}
	if missing != "" {
		t.Skip("the test needs ", missing)
	}
	file = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 1<<20); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "losetup", "--find", "--show", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	device = strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("losetup: %v: %s", err, out)
		}
	})
	return device, file
}

// A machine can use a block device that its process could not open itself, and
// no second machine can open the device at the same time.
func TestBootWithDevice(t *testing.T) {
	cfg, _ := guest(t, vmm.MicroVM)
	device, file := loopDevice(t, "base\n")
	cfg.Disks = []vmm.Disk{{Serial: "device", Path: device, Format: vmm.Raw, Device: true}}
	m := start(t, cfg)
	unprivileged(t, m)
	a := dialAgent(t, m)
	if got := a.ask("disks"); got != "device=0" {
		t.Errorf("disks %q", got)
	}
	if got := a.ask("read device"); got != "base" {
		t.Errorf("the device holds %q", got)
	}
	if got := a.ask("write device new"); got != "ok" {
		t.Errorf("write: %s", got)
	}
	again := cfg
	again.Dir, again.Console = t.TempDir(), nil
	if m, err := (qemu.Monitor{}).Start(t.Context(), again); err == nil {
		t.Error("a second machine has the device")
		if err := m.Kill(); err != nil {
			t.Error(err)
		}
	}
	if got := a.ask("poweroff"); got != "bye" {
		t.Errorf("power off: %s", got)
	}
	waitEnded(t, m)
	if got := firstBytes(t, file, 4); got != "new\n" {
		t.Errorf("the file under the device holds %q", got)
	}
}

// A disk of another type than the configuration's is refused before QEMU
// starts.
func TestDiskOfAnotherType(t *testing.T) {
	cfg, _ := guest(t, vmm.MicroVM)
	device, file := loopDevice(t, "base\n")
	for want, d := range map[string]vmm.Disk{
		"not a block device": {Path: file, Device: true},
		"not a regular file": {Path: device, ReadOnly: true},
	} {
		d.Serial, d.Format = "disk", vmm.Raw
		cfg.Disks = []vmm.Disk{d}
		if _, err := (qemu.Monitor{}).Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
