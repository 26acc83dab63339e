package vm

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/banger-vm/banger/internal/vmm"
)

// baseDisk is a file of size bytes that stands for an image's disk.
func baseDisk(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "base")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("image"), 4096); err != nil {
		t.Fatal(err)
	}
	return path
}

func needImageTool(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("qemu-img"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("qemu-img is missing: scripts/install-deps test")
		}
		t.Skip("qemu-img is missing")
	}
}

func TestCloneDisk(t *testing.T) {
	needImageTool(t)
	const size = 1 << 20
	for _, row := range []struct {
		name     string
		size     int64
		readOnly bool
		want     int64
	}{
		{"as large as the image's", 0, false, size}, {"larger", 8 * size, false, 8 * size}, {"read-only", 0, true, size},
	} {
		t.Run(row.name, func(t *testing.T) {
			image, dir := baseDisk(t, size), t.TempDir()
			d, err := cloneDisk(t.Context(), image, dir, row.size, row.readOnly)
			if err != nil || d.Size != row.want {
				t.Fatalf("disk = %+v, %v", d, err)
			}
			dev := d.device(dir)
			if dev.ReadOnly != row.readOnly || (dev.Format == vmm.QCOW2) != (dev.Backing != "") {
				t.Errorf("device = %+v", dev)
			}
			// The machine keeps its base whatever becomes of the image.
			if err := os.Remove(image); err != nil {
				t.Fatal(err)
			}
			raw := filepath.Join(dir, "content")
			if out, err := exec.Command("qemu-img", "convert", "-f", string(dev.Format), "-O", "raw", dev.Path, raw).CombinedOutput(); err != nil {
				t.Fatalf("qemu-img: %v: %s", err, out)
			}
			got, err := os.ReadFile(raw)
			if err != nil || int64(len(got)) != row.want || string(got[4096:4101]) != "image" {
				t.Errorf("content of %d bytes, %v", len(got), err)
			}
		})
	}
}

func TestCloneDiskTooSmall(t *testing.T) {
	dir := t.TempDir()
	_, err := cloneDisk(t.Context(), baseDisk(t, 1<<20), dir, 1<<19, false)
	var input *InputError
	if !errors.As(err, &input) {
		t.Errorf("error = %v, want an InputError", err)
	}
}

func TestCloneDiskWithoutTool(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	dir := t.TempDir()
	d, err := cloneDisk(t.Context(), baseDisk(t, 1<<20), dir, 0, false)
	if err == nil && d.Driver == Reflink {
		t.Skip("extents are shared here: no tool is needed")
	}
	if !errors.Is(err, ErrNoOverlay) {
		t.Errorf("error = %v, want ErrNoOverlay", err)
	}
}

// BenchmarkCloneDisk clones on the file system of $TMPDIR.
func BenchmarkCloneDisk(b *testing.B) {
	for _, size := range []int64{1 << 30, 20 << 30} {
		b.Run(strconv.FormatInt(size>>30, 10)+"GiB", func(b *testing.B) {
			image := filepath.Join(b.TempDir(), "base")
			if err := os.WriteFile(image, make([]byte, 1<<20), 0o600); err != nil {
				b.Fatal(err)
			}
			if err := os.Truncate(image, size); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := cloneDisk(b.Context(), image, b.TempDir(), 0, false); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
