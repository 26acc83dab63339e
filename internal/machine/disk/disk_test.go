package disk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/banger-vm/banger/internal/machine/ledger"
	"github.com/banger-vm/banger/internal/machine/ledger/resource"
	"github.com/banger-vm/banger/internal/machine/spec"
	"github.com/banger-vm/banger/internal/vmm"
)

// imageDisk makes a file of size bytes in dir for an image's disk. It has the text
// "image" at byte 4096.
func imageDisk(t *testing.T, dir string, size int64) string {
	t.Helper()
	path := filepath.Join(dir, "base")
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

// newMaker makes the folder of a machine in root and returns the maker of its
// resources. The ledger calls record at every write, before it writes its own file.
func newMaker(t testing.TB, root string, record func() error) (mk resource.Maker, dir string) {
	t.Helper()
	return makerFor(t, root, fmt.Sprintf("%012x", os.Getpid()), record)
}

// makerFor is newMaker for a machine with the given ID.
func makerFor(t testing.TB, root, id string, record func() error) (mk resource.Maker, dir string) {
	t.Helper()
	dir = filepath.Join(root, "machines", id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	owner, err := ledger.NewOwner(id, root)
	if err != nil {
		t.Fatal(err)
	}
	began := false
	l, err := ledger.New(dir, id, ledger.Record{Write: func(json.RawMessage) error {
		if !began {
			return nil
		}
		return record()
	}})
	began = true
	if err != nil {
		t.Fatal(err)
	}
	return resource.Maker{Ledger: l, Owner: owner}, dir
}

func noError() error { return nil }

// leftFiles returns the names of the files in a machine's folder except its ledger.
func leftFiles(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != ledger.FileName {
			names = append(names, e.Name())
		}
	}
	return names
}

func hash(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return string(h.Sum(nil))
}

// requireTools skips the test if a program is missing. In CI it fails.
func requireTools(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			skip(t, err.Error()+": scripts/install-deps test")
		}
	}
}

// skip skips the test. In CI it fails.
func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// tool runs a program and returns its output.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...) // without t.Context, because cleanups call it
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, &stderr)
	}
	return string(out)
}

// mount makes a file system of size bytes and returns the folder at which it is
// mounted.
func mount(t *testing.T, kind string, size int64) string {
	t.Helper()
	if os.Geteuid() != 0 {
		skip(t, "needs root")
	}
	requireTools(t, "mkfs."+kind, "mount", "umount")
	dir := t.TempDir()
	device, point := filepath.Join(dir, "device"), filepath.Join(dir, "mounted")
	if err := errors.Join(os.WriteFile(device, nil, 0o600), os.Truncate(device, size), os.Mkdir(point, 0o700)); err != nil {
		t.Fatal(err)
	}
	tool(t, "mkfs."+kind, "-q", device)
	tool(t, "mount", "-o", "loop", device, point)
	t.Cleanup(func() { tool(t, "umount", point) })
	return point
}

// guestContent returns the bytes that the guest reads from the disk.
func guestContent(t *testing.T, dev vmm.Disk) []byte {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "content")
	tool(t, "qemu-img", "convert", "-f", string(dev.Format), "-O", "raw", dev.Path, raw)
	data, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// checkDisk makes a disk, checks its files and its content, and removes it.
func checkDisk(t *testing.T, root string, o Options, want spec.Driver) Disk {
	t.Helper()
	const size = 1 << 20
	image := imageDisk(t, root, size)
	before := hash(t, image)
	writes := 0
	mk, dir := newMaker(t, root, func() error { writes++; return nil })
	d, err := Make(t.Context(), mk, image, dir, o)
	if err != nil || d.Driver != want || d.Why == "" || d.Size != max(size, o.Size) {
		t.Fatalf("disk = %+v, %v, want driver %s", d, err, want)
	}
	if writes != 2 {
		t.Errorf("%d writes of the ledger, want 2", writes)
	}
	if got := leftFiles(t, dir); !slices.Equal(got, slices.Sorted(slices.Values(files(want)))) {
		t.Errorf("files %q, want %q", got, files(want))
	}
	dev, err := d.Attach(t.Context(), mk, dir)
	if err != nil || dev.ReadOnly != o.ReadOnly || (dev.Format == vmm.QCOW2) != (dev.Backing != "") || dev.Device {
		t.Errorf("device = %+v, %v", dev, err)
	}
	if after := hash(t, image); after != before {
		t.Error("the image's disk was written")
	}
	// The machine keeps its base after the image is removed.
	if err := os.Remove(image); err != nil {
		t.Fatal(err)
	}
	if got := guestContent(t, dev); int64(len(got)) != d.Size || string(got[4096:4101]) != "image" {
		t.Errorf("content of %d bytes", len(got))
	}
	if got := Allocated(filepath.Join(dir, d.File)); got == 0 && d.Driver != spec.Overlay || got > size/2 {
		t.Errorf("the disk's file takes %d bytes: its holes are filled", got)
	}
	if err := mk.Ledger.Teardown(t.Context(), resource.Remove); err != nil {
		t.Fatal(err)
	}
	if got := leftFiles(t, dir); len(got) > 0 {
		t.Errorf("left: %q", got)
	}
	return d
}

func TestMakeDisk(t *testing.T) {
	requireTools(t, imageTool)
	for _, row := range []struct {
		name string
		o    Options
		want spec.Driver
	}{
		{"overlay", Options{Driver: spec.Overlay}, spec.Overlay},
		{"overlay, larger", Options{Driver: spec.Overlay, Size: 8 << 20}, spec.Overlay},
		{"copy", Options{Driver: spec.Copy}, spec.Copy},
		{"copy, larger", Options{Driver: spec.Copy, Size: 8 << 20}, spec.Copy},
		{"read-only", Options{ReadOnly: true}, spec.Shared},
		{"read-only, with a driver", Options{ReadOnly: true, Driver: spec.Overlay}, spec.Shared},
	} {
		t.Run(row.name, func(t *testing.T) { checkDisk(t, t.TempDir(), row.o, row.want) })
	}
}

func TestMakeDiskRefuses(t *testing.T) {
	for _, row := range []struct {
		name string
		o    Options
		want string
	}{
		{"smaller than the image", Options{Size: 1 << 19}, "disk size of 512 KiB: the image's disk has 1 MiB"},
		{"half a sector", Options{Size: 2<<20 + 100}, "multiple of 512"},
		{"read-only of another size", Options{Size: 2 << 20, ReadOnly: true}, "read-only"},
		{"an unknown driver", Options{Driver: "zfs"}, `disk driver "zfs"`},
		{"the driver of read-only machines", Options{Driver: spec.Shared}, `disk driver "shared"`},
	} {
		t.Run(row.name, func(t *testing.T) {
			root := t.TempDir()
			mk, dir := newMaker(t, root, noError)
			_, err := Make(t.Context(), mk, imageDisk(t, root, 1<<20), dir, row.o)
			if _, ok := errors.AsType[*spec.InputError](err); !ok || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error = %v, want an InputError with %q", err, row.want)
			}
			if got := leftFiles(t, dir); len(got) > 0 || len(mk.Ledger.Entries()) > 0 {
				t.Errorf("left: %q, entries %v", got, mk.Ledger.Entries())
			}
		})
	}
}

// TestDriversOfFileSystems checks on each file system which driver Auto selects,
// the reasons of the drivers, and that trying them leaves no file.
func TestDriversOfFileSystems(t *testing.T) {
	requireTools(t, imageTool)
	const size = 512 << 20
	for _, row := range []struct {
		kind, why, without string
		want, second       spec.Driver // with qemu-img, and without
	}{
		{"ext4", "ext4 does not share extents; qemu-img is installed",
			"ext4 does not share extents; qemu-img is not installed; a copy works everywhere", spec.Overlay, spec.Copy},
		{"btrfs", "btrfs shares extents", "btrfs shares extents", spec.Reflink, spec.Reflink},
		{"xfs", "xfs shares extents", "xfs shares extents", spec.Reflink, spec.Reflink},
	} {
		t.Run(row.kind, func(t *testing.T) {
			root := mount(t, row.kind, size)
			for _, o := range []Options{{}, {Driver: spec.Auto, Size: 8 << 20}} {
				if d := checkDisk(t, root, o, row.want); d.Why != row.why {
					t.Errorf("why = %q, want %q", d.Why, row.why)
				}
			}
			for _, d := range []spec.Driver{spec.Overlay, spec.Copy} {
				checkDisk(t, root, Options{Driver: d}, d)
			}
			if row.want == spec.Reflink {
				checkDisk(t, root, Options{Driver: spec.Reflink}, spec.Reflink)
			} else {
				checkRefused(t, root, spec.Reflink, row.kind+" does not share extents")
			}
			checkProbe(t, root, row.want)
			// checkDisk needs the tool that is missing now, so Make is called alone.
			t.Setenv("PATH", t.TempDir())
			checkRefused(t, root, spec.Overlay, "qemu-img is not installed")
			mk, dir := newMaker(t, root, noError)
			d, err := Make(t.Context(), mk, imageDisk(t, root, 1<<20), dir, Options{})
			if err != nil || d.Driver != row.second || d.Why != row.without {
				t.Errorf("without qemu-img: %+v, %v, want %s: %q", d, err, row.second, row.without)
			}
			if err := mk.Ledger.Teardown(t.Context(), resource.Remove); err != nil {
				t.Error(err)
			}
			checkProbe(t, root, row.second)
			if err := os.Unsetenv("PATH"); err != nil { // t.Setenv restores it
				t.Fatal(err)
			}
		})
	}
}

// checkRefused asserts that a driver does not work in root for the reason why, and
// leaves no file.
func checkRefused(t *testing.T, root string, d spec.Driver, why string) {
	t.Helper()
	mk, dir := newMaker(t, root, noError)
	_, err := Make(t.Context(), mk, imageDisk(t, root, 1<<20), dir, Options{Driver: d})
	got, ok := errors.AsType[*DriverError](err)
	if !ok || got.Driver != d || !strings.Contains(err.Error(), why) {
		t.Errorf("driver %s: %v, want a DriverError with %q", d, err, why)
	}
	if got := leftFiles(t, dir); len(got) > 0 || len(mk.Ledger.Entries()) > 0 {
		t.Errorf("left: %q, entries %v", got, mk.Ledger.Entries())
	}
}

// checkProbe asserts that Probe reports auto as the driver that Auto selects, and
// leaves root unchanged.
func checkProbe(t *testing.T, root string, auto spec.Driver) {
	t.Helper()
	list := func() (names []string) {
		entries, err := os.ReadDir(root)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	before := list()
	for _, r := range Probe(t.Context(), root) {
		if r.Why == "" || r.Auto != (r.Driver == auto) || r.Auto && !r.Usable || r.Driver == spec.Copy && !r.Usable {
			t.Errorf("report %+v, want %s to be auto", r, auto)
		}
	}
	if after := list(); !slices.Equal(after, before) {
		t.Errorf("%q after a probe, before it %q", after, before)
	}
}

func TestProbeWithoutFolder(t *testing.T) {
	reports := Probe(t.Context(), filepath.Join(t.TempDir(), "none"))
	if len(reports) != len(drivers()) {
		t.Errorf("%d reports", len(reports))
	}
	for _, r := range reports {
		if r.Usable || r.Auto || !strings.Contains(r.Why, "no such file") {
			t.Errorf("report %+v", r)
		}
	}
}

// TestAttachRefuses checks that a damaged record cannot give the guest a file
// that is not its own.
func TestAttachRefuses(t *testing.T) {
	mk, dir := newMaker(t, t.TempDir(), noError)
	for _, d := range []Disk{
		{}, {Driver: spec.Reflink, File: baseFile}, {Driver: spec.Overlay, File: baseFile}, {Driver: spec.Copy, File: "record.json"},
		{Driver: "zfs", File: rawFile}, {Driver: spec.DM, File: baseFile}, {Driver: spec.Auto, File: rawFile},
	} {
		if dev, err := d.Attach(t.Context(), mk, dir); err == nil {
			t.Errorf("%+v is attached as %+v", d, dev)
		}
	}
}

// fill fills the file system of dir until spare bytes are free.
func fill(dir string, spare int64) error {
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, 64<<10)
	for err == nil {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(info.Size()-spare), f.Sync())
}

// TestFullDisk makes disks on file systems with too little space. Some of them are
// full from the start, others become full while the disk is made. Each error has
// the figures, and no file is left.
func TestFullDisk(t *testing.T) {
	requireTools(t, imageTool)
	const size, data, spare = 200 << 20, 64 << 20, 128 << 10
	for _, row := range []struct {
		name      string
		before    int64 // bytes free at the beginning; 0: all
		meanwhile int64 // bytes free after the first write of the record; 0: all
		record    int   // number of the write of the record that fails
		driver    spec.Driver
		need      string
	}{
		{"no reserve", 32 << 20, 0, 0, spec.Overlay, " 64 MiB are needed"},
		{"no reserve for a read-only one", 32 << 20, 0, 0, spec.Shared, " 64 MiB are needed"},
		{"too little for a copy", 100 << 20, 0, 0, spec.Copy, " 129 MiB are needed"},
		{"full while it is copied", 0, data / 2, 0, spec.Copy, " 129 MiB are needed"},
		{"full while the overlay is made", 0, spare, 0, spec.Overlay, " 64 MiB are needed"},
		{"full when the ledger reserves it", 0, 0, 1, spec.Copy, " 129 MiB are needed"},
		{"full when the ledger identifies it", 0, 0, 2, spec.Copy, " 129 MiB are needed"},
	} {
		t.Run(row.name, func(t *testing.T) {
			root, images := mount(t, "ext4", size), mount(t, "ext4", size)
			image := imageDisk(t, images, data)
			if err := os.WriteFile(image, bytes.Repeat([]byte("data"), data/4), 0o600); err != nil {
				t.Fatal(err)
			}
			if row.driver != spec.Copy { // the other drivers link the image's disk, so it lies on the same file system
				image = imageDisk(t, root, 1<<20)
			}
			writes := 0
			mk, dir := newMaker(t, root, func() error {
				writes++
				switch {
				case writes == row.record:
					return syscall.ENOSPC
				case writes == 1 && row.meanwhile > 0:
					return fill(root, row.meanwhile)
				}
				return nil
			})
			if row.before > 0 {
				if err := fill(root, row.before); err != nil {
					t.Fatal(err)
				}
			}
			o := Options{Driver: row.driver}
			if row.driver == spec.Shared {
				o = Options{ReadOnly: true}
			}
			_, err := Make(t.Context(), mk, image, dir, o)
			if !errors.Is(err, ErrNoSpace) || !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), row.need) {
				t.Errorf("error = %v, want ErrNoSpace with %q", err, row.need)
			}
			if got := leftFiles(t, dir); len(got) > 0 || len(mk.Ledger.Entries()) > 0 {
				t.Errorf("left: %q, entries %v", got, mk.Ledger.Entries())
			}
		})
	}
}

// TestMakeDiskInterrupted checks that Make leaves no file when its context ends.
func TestMakeDiskInterrupted(t *testing.T) {
	root := t.TempDir()
	mk, dir := newMaker(t, root, noError)
	image := imageDisk(t, root, 8<<20)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, d := range []spec.Driver{spec.Copy, spec.Overlay} {
		if _, err := Make(ctx, mk, image, dir, Options{Driver: d}); !errors.Is(err, context.Canceled) {
			t.Errorf("driver %s: %v, want context.Canceled", d, err)
		}
		if got := leftFiles(t, dir); len(got) > 0 || len(mk.Ledger.Entries()) > 0 {
			t.Errorf("driver %s: left %q, entries %v", d, got, mk.Ledger.Entries())
		}
	}
}

// BenchmarkMakeDisk makes disks on the file system of $TMPDIR. It includes the
// writes of the ledger.
func BenchmarkMakeDisk(b *testing.B) {
	for _, size := range []int64{1 << 30, 20 << 30} {
		b.Run(strconv.FormatInt(size>>30, 10)+"GiB", func(b *testing.B) {
			root := b.TempDir()
			image := filepath.Join(root, "base")
			if err := errors.Join(os.WriteFile(image, make([]byte, 1<<20), 0o600), os.Truncate(image, size)); err != nil {
				b.Fatal(err)
			}
			mk, dir := newMaker(b, root, noError)
			for b.Loop() {
				if _, err := Make(b.Context(), mk, image, dir, Options{}); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := mk.Ledger.Teardown(b.Context(), resource.Remove); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}
