//go:build e2e

package e2e

import (
	"debug/elf"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// kernelPackage returns the source for the distribution's kernel package, by a name without a version.
func kernelPackage() string {
	if release, err := os.ReadFile("/etc/os-release"); err == nil && strings.Contains(string(release), "\nID=ubuntu\n") {
		return "apt:linux-image-virtual"
	}
	return "apt:linux-image-cloud-amd64"
}

// inspectedKernel has the fields of `kernel inspect` that the tests check.
type inspectedKernel struct {
	ID, Release, Origin, Folder, BootPath string
	Modules                               struct{ Count int }
	Features                              []struct {
		Name, State string
		Required    bool
	}
}

func inspectKernel(t *testing.T, box sandbox, name string) inspectedKernel {
	t.Helper()
	var out []inspectedKernel
	if err := json.Unmarshal([]byte(box.must(t, "kernel", "inspect", name).stdout), &out); err != nil || len(out) != 1 {
		t.Fatalf("kernel inspect %s: %d kernels, %v", name, len(out), err)
	}
	return out[0]
}

// needKernelPackage skips the test if apt has no such package, and fails it in CI.
func needKernelPackage(t *testing.T) {
	t.Helper()
	need(t, "apt-get", "apt-cache", "e2fsck", "debugfs")
	if out := aptCandidate(t); out == "" {
		unavailable(t, "apt knows no "+kernelPackage())
	}
}

func aptCandidate(t *testing.T) string {
	t.Helper()
	out := tool(t, "env", "LC_ALL=C", "apt-cache", "policy", strings.TrimPrefix(kernelPackage(), "apt:"))
	_, after, _ := strings.Cut(out, "Candidate: ")
	version, _, _ := strings.Cut(after, "\n")
	if version == "(none)" {
		return ""
	}
	return version
}

// TestKernelFromThePackageManager (R2): a user without privileges gets the distribution's kernel by name.
func TestKernelFromThePackageManager(t *testing.T) {
	needKernelPackage(t)
	box := newUnprivilegedSandbox(t)
	box.must(t, "kernel", "pull", kernelPackage(), "--name", "default")
	k := inspectKernel(t, box, "default")
	if !strings.HasPrefix(k.Origin, kernelPackage()+"="+aptCandidate(t)+",linux-image-"+k.Release+"=") {
		t.Errorf("origin is %s, release %s", k.Origin, k.Release)
	}
	for _, f := range k.Features {
		if f.State != "built in" && f.State != "module" {
			t.Errorf("%s is %s", f.Name, f.State)
		}
	}
	f, err := elf.Open(k.BootPath)
	if err != nil || f.Type != elf.ET_EXEC || filepath.Base(k.BootPath) != "vmlinux" {
		t.Fatalf("boots %s: %v", k.BootPath, err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}

	disk := filepath.Join(k.Folder, "modules.ext4")
	tool(t, "e2fsck", "-fn", disk)
	order := tool(t, "debugfs", "-R", "cat /lib/modules/"+k.Release+"/modules.dep", disk)
	for _, module := range []string{"virtio_blk", "virtio_mmio", "virtio_console", "virtio_pci", "overlay", "dm-snapshot"} {
		if !strings.Contains(order, "/"+module+".ko:") {
			t.Errorf("no module %s", module)
		}
	}
	if k.Modules.Count < 500 {
		t.Errorf("%d modules", k.Modules.Count)
	}

	// A bundle is the same kernel in another sandbox.
	box.must(t, "kernel", "export", "default", box.path("out", "k.tar"))
	other := newSandbox(t)
	other.must(t, "kernel", "import", "bundle:"+box.path("out", "k.tar"), "--name", "copy")
	if again := inspectKernel(t, other, "copy"); again.ID != k.ID || again.Origin != k.Origin {
		t.Errorf("the bundle gives %s of %s, want %s of %s", again.ID, again.Origin, k.ID, k.Origin)
	}

	box.must(t, "kernel", "rm", "default")
	left, err := os.ReadDir(box.path("data", "banger", "kernels"))
	if err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
