package machine

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/machine/repair"
)

// TestExamine checks that a machine in order has no finding, and that the report has
// all checks of the host.
func TestExamine(t *testing.T) {
	s := openStore(t)
	s.mustCreate(t, options(t, "box"))
	r, err := s.Examine(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Machines) > 0 || len(r.Leftovers) > 0 || len(r.Restart) > 0 {
		t.Errorf("report %+v", r)
	}
	var names []string
	for _, c := range r.Checks {
		if c.Name == "" || c.Detail == "" || !slices.Contains([]repair.Level{repair.LevelOK, repair.LevelWarning, repair.LevelError}, c.Level) {
			t.Errorf("check %+v", c)
		}
		names = append(names, c.Name)
	}
	for _, want := range []string{"qemu", "kvm", "confinement", "disks", "runtime", "space", "memory"} {
		if !slices.Contains(names, want) {
			t.Errorf("checks %q lack %s", names, want)
		}
	}
}

func TestCheckKVM(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "file")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{filepath.Join(dir, "none"): "is not there", plain: "does not answer"} {
		if c := checkKVM(path); c.Level != repair.LevelWarning || !strings.Contains(c.Detail, want) {
			t.Errorf("%s: %+v, want %q", path, c, want)
		}
	}
	if err := os.Chmod(plain, 0o660); err != nil { //nolint:gosec // the test needs a file that a group can write
		t.Fatal(err)
	}
	if got := joinGroup(plain); !strings.Contains(got, plain) && !strings.Contains(got, "usermod") {
		t.Errorf("advice %q", got)
	}
}

func TestCheckConfinement(t *testing.T) {
	for abi, want := range map[int]string{0: "no Landlock", 3: "other files", 4: "files and TCP", 7: "files, TCP and other processes"} {
		c := checkConfinement(abi, false)
		if !strings.Contains(c.Detail, want) || (c.Level == repair.LevelWarning) != (abi == 0) || (c.Fix == "") != (abi != 0) {
			t.Errorf("ABI %d: %+v, want %q", abi, c, want)
		}
	}
	if c := checkConfinement(7, true); c.Level != repair.LevelWarning || !strings.Contains(c.Detail, "is not confined") || c.Fix == "" {
		t.Errorf("switched off: %+v", c)
	}
}

func TestChecksCanFail(t *testing.T) {
	s := openStore(t)
	s.Limits.DiskReserve = 1 << 62
	if c := checkFree(s.root, &s.Limits); c.Level != repair.LevelError || c.Fix == "" {
		t.Errorf("space: %+v", c)
	}
	if err := os.Chmod(s.root.Runtime(), 0o755); err != nil { //nolint:gosec // the test needs a folder that others can enter
		t.Fatal(err)
	}
	if c := checkRuntime(s.root); c.Level != repair.LevelError {
		t.Errorf("runtime: %+v", c)
	}
	t.Setenv("PATH", t.TempDir())
	if c := checkMonitor(t.Context()); c.Level != repair.LevelError || c.Fix == "" {
		t.Errorf("qemu: %+v", c)
	}
	for version, want := range map[string]bool{"7.2.22 (Debian)": true, "10.0.0": true, "7.1.0": false, "6.9": false, "odd": false, "8": false} {
		if isRecent(version) != want {
			t.Errorf("version %q is recent: %v", version, !want)
		}
	}
}
