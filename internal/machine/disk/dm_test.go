package disk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/base/atomicfile"
	"github.com/banger-vm/banger/internal/machine/ledger"
	"github.com/banger-vm/banger/internal/machine/ledger/resource"
	"github.com/banger-vm/banger/internal/machine/spec"
)

// requireDeviceMapper skips the test if the kernel has no device mapper. It fails
// if BANGER_TEST_DM is set, as it is in `make test-vm`.
func requireDeviceMapper(t *testing.T) {
	t.Helper()
	err := resource.CheckSnapshots()
	if err != nil && os.Getenv("BANGER_TEST_DM") != "" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skip(err)
	}
	requireTools(t, "losetup", "dmsetup")
}

// devices returns the loop and dm devices of the machine in dir, by the listings
// of losetup(8) and dmsetup(8).
func devices(t *testing.T, dir string) (out []string) {
	t.Helper()
	id := filepath.Base(dir)
	for line := range strings.Lines(tool(t, "losetup", "-a")) {
		if strings.Contains(line, dir) {
			out = append(out, strings.TrimSpace(line))
		}
	}
	for line := range strings.Lines(tool(t, "dmsetup", "ls")) {
		if strings.Contains(line, id) {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

// patternDisk makes a file for an image's disk. No two of its sectors are equal.
func patternDisk(t *testing.T, dir string, size int) (path string, data []byte) {
	t.Helper()
	data = pattern(size, 1)
	path = filepath.Join(dir, "image")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, data
}

// pattern returns sectors filled with seed that each begin with their number.
func pattern(size int, seed byte) []byte {
	out := make([]byte, 0, size)
	for n := 0; len(out) < size; n++ {
		sector := bytes.Repeat([]byte{seed}, resource.SectorSize)
		copy(sector, strconv.Itoa(n))
		out = append(out, sector...)
	}
	return out[:size]
}

// writeDevice writes to a device and syncs it.
func writeDevice(t *testing.T, path string, data []byte, off int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(data, off)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// detach removes the machine's devices, keeps its files, and asserts that no
// device is left.
func detach(t *testing.T, mk resource.Maker, dir string) {
	t.Helper()
	if err := mk.Ledger.Teardown(t.Context(), resource.Remove, ledger.Disk, ledger.Folder); err != nil {
		t.Fatal(err)
	}
	if got := devices(t, dir); len(got) > 0 {
		t.Fatalf("after the teardown: %q", got)
	}
}

// TestDMDisk attaches a disk twice. The second time it has all bytes that were
// written the first time, and the image's disk is unchanged.
func TestDMDisk(t *testing.T) {
	requireDeviceMapper(t)
	const size = 3 << 20
	for _, row := range []struct {
		name string
		size int64
	}{{"as large as the image's", size}, {"larger", 5 << 20}, {"larger by a sector", size + resource.SectorSize}} {
		t.Run(row.name, func(t *testing.T) {
			root := t.TempDir()
			image, data := patternDisk(t, root, size)
			mk, dir := newMaker(t, root, noError)
			d, err := Make(t.Context(), mk, image, dir, Options{Driver: spec.DM, Size: row.size})
			if err != nil || d.Driver != spec.DM || d.Size != row.size {
				t.Fatalf("disk = %+v, %v", d, err)
			}
			dev, err := d.Attach(t.Context(), mk, dir)
			if err != nil || !dev.Device || dev.ReadOnly || dev.Backing != "" {
				t.Fatalf("device = %+v, %v", dev, err)
			}
			if got, want := len(devices(t, dir)), 3; got < want {
				t.Errorf("%d devices are listed, want %d or more", got, want)
			}
			want := append(slices.Clone(data), make([]byte, row.size-size)...)
			if got, err := os.ReadFile(dev.Path); err != nil || !bytes.Equal(got, want) {
				t.Errorf("the %d bytes of the new disk differ from the image's, %v", len(got), err)
			}
			want = pattern(int(row.size), 2) // every sector changes
			writeDevice(t, dev.Path, want, 0)
			detach(t, mk, dir)
			dev, err = d.Attach(t.Context(), mk, dir)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(dev.Path); err != nil || !bytes.Equal(got, want) {
				t.Errorf("the %d bytes of the disk differ from the bytes written, %v", len(got), err)
			}
			writeDevice(t, dev.Path, []byte("once more"), row.size-9)
			detach(t, mk, dir)
			if got, err := os.ReadFile(image); err != nil || !bytes.Equal(got, data) {
				t.Errorf("the image's disk was written (%v)", err)
			}
			if err := mk.Ledger.Teardown(t.Context(), resource.Remove); err != nil {
				t.Error(err)
			}
			if got := leftFiles(t, dir); len(got) > 0 || len(mk.Ledger.Entries()) > 0 {
				t.Errorf("left: %q, entries %v", got, mk.Ledger.Entries())
			}
		})
	}
}

// TestDMDisksOfOneImage checks that two machines with one image do not see each
// other's changes.
func TestDMDisksOfOneImage(t *testing.T) {
	requireDeviceMapper(t)
	root := t.TempDir()
	image, data := patternDisk(t, root, 1<<20)
	var paths []string
	for n := range 2 {
		mk, dir := makerFor(t, root, fmt.Sprintf("%011x%d", os.Getpid(), n), noError)
		d, err := Make(t.Context(), mk, image, dir, Options{Driver: spec.DM})
		if err != nil {
			t.Fatal(err)
		}
		dev, err := d.Attach(t.Context(), mk, dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := mk.Ledger.Teardown(context.Background(), resource.Remove); err != nil {
				t.Error(err)
			}
			if got := devices(t, dir); len(got) > 0 {
				t.Errorf("left: %q", got)
			}
		})
		writeDevice(t, dev.Path, runMark(n), int64(n)*4096)
		paths = append(paths, dev.Path)
	}
	for n, path := range paths {
		want := slices.Clone(data)
		copy(want[n*4096:], runMark(n))
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("machine %d: its %d bytes are wrong, %v", n, len(got), err)
		}
	}
}

// TestDMDiskTakesNoSpace checks that the file of changes takes no space before the
// first change.
func TestDMDiskTakesNoSpace(t *testing.T) {
	requireDeviceMapper(t)
	root := t.TempDir()
	image, _ := patternDisk(t, root, 1<<20)
	mk, dir := newMaker(t, root, noError)
	d, err := Make(t.Context(), mk, image, dir, Options{Driver: spec.DM, Size: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	cow := filepath.Join(dir, d.File)
	if info, err := os.Stat(cow); err != nil || info.Size() <= d.Size || Allocated(cow) > 0 {
		t.Errorf("%s of %d bytes takes %d (%v)", d.File, info.Size(), Allocated(cow), err)
	}
	dev, err := d.Attach(t.Context(), mk, dir)
	if err != nil {
		t.Fatal(err)
	}
	writeDevice(t, dev.Path, []byte("far"), d.Size-512)
	detach(t, mk, dir)
	if got := Allocated(cow); got == 0 || got > 1<<20 {
		t.Errorf("one changed page takes %d bytes", got)
	}
}

// dmProcessVariable is set in the environment of the process that
// TestDMDiskKilledAtEveryStep starts. Its value is the data folder, a comma, and
// the number of the write of the ledger at which the process kills itself, or 0.
const dmProcessVariable = "BANGER_TEST_DM_PROCESS"

// TestDMProcess is the process that TestDMDiskKilledAtEveryStep starts. It makes a
// dm disk, attaches it, writes to it and detaches it dmRuns times, and removes it.
func TestDMProcess(t *testing.T) {
	job := os.Getenv(dmProcessVariable)
	if job == "" {
		return
	}
	root, number, _ := strings.Cut(job, ",")
	at, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	w := dmTest{root}
	writes := 0
	l, err := ledger.New(w.dir(), dmTestID, ledger.Record{Write: func(section json.RawMessage) error {
		if writes++; writes == at {
			return errors.Join(syscall.Kill(os.Getpid(), syscall.SIGKILL), waitForKill())
		}
		return atomicfile.Write(w.record(), section, 0o600)
	}})
	if err != nil {
		t.Fatal(err)
	}
	mk := resource.Maker{Ledger: l, Owner: w.owner(t)}
	d, err := Make(t.Context(), mk, w.image(), w.dir(), Options{Driver: spec.DM, Size: dmTestSize})
	if err != nil {
		t.Fatal(err)
	}
	for n := range dmRuns {
		dev, err := d.Attach(t.Context(), mk, w.dir())
		if err != nil {
			t.Fatal(err)
		}
		writeDevice(t, dev.Path, runMark(n), int64(n)*4096)
		if err := os.WriteFile(w.written(n), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		detach(t, mk, w.dir())
	}
	if err := errors.Join(l.Teardown(t.Context(), resource.Remove), os.WriteFile(w.writes(), []byte(strconv.Itoa(writes)), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// waitForKill waits until the process's own SIGKILL arrives.
func waitForKill() error { select {} }

const (
	dmTestID   = "d0d0d0d0d0d0"
	dmTestSize = 2 << 20
	dmRuns     = 2
)

// A dmTest has the paths of the machine of TestDMProcess. root is the data folder.
type dmTest struct{ root string }

func (w dmTest) dir() string    { return filepath.Join(w.root, "machines", dmTestID) }
func (w dmTest) record() string { return filepath.Join(w.dir(), "section.json") }
func (w dmTest) image() string  { return filepath.Join(w.root, "image") }
func (w dmTest) writes() string { return filepath.Join(w.root, "writes") }

// written returns the path of a file that exists if run n has written its mark.
func (w dmTest) written(n int) string { return filepath.Join(w.root, "written-"+strconv.Itoa(n)) }

// runMark returns the bytes that run n writes to the disk, at n*4096.
func runMark(n int) []byte { return []byte(fmt.Sprintf("run %d wrote this", n)) }

func (w dmTest) owner(t *testing.T) ledger.Owner {
	t.Helper()
	owner, err := ledger.NewOwner(dmTestID, w.root)
	if err != nil {
		t.Fatal(err)
	}
	return owner
}

// runProcess runs TestDMProcess in another process, which kills itself at a write of the
// ledger. It returns the error of the process if it was killed.
func (w dmTest) runProcess(t *testing.T, at int) error {
	t.Helper()
	if err := os.MkdirAll(w.dir(), 0o700); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestDMProcess$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s,%d", dmProcessVariable, w.root, at))
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState.ExitCode() >= 0 {
		t.Fatalf("%v: %s", err, out)
	}
	return err
}

// recoverRuns removes the devices of the killed process, as a daemon does, and attaches
// the disk again. It returns the number of runs whose marks are on the disk.
func (w dmTest) recoverRuns(t *testing.T) int {
	t.Helper()
	section, err := os.ReadFile(w.record())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	l, _, err := ledger.Open(w.dir(), dmTestID, ledger.Record{Section: section, Write: func(s json.RawMessage) error {
		return atomicfile.Write(w.record(), s, 0o600)
	}})
	if errors.Is(err, ledger.ErrNoLedger) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	mk := resource.Maker{Ledger: l, Owner: w.owner(t)}
	detach(t, mk, w.dir())
	d := Disk{Driver: spec.DM, File: cowFile, Size: dmTestSize}
	if _, err := os.Stat(filepath.Join(w.dir(), d.File)); err != nil {
		return 0
	}
	dev, err := d.Attach(t.Context(), mk, w.dir())
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(dev.Path)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for n := range dmRuns {
		if bytes.Contains(data, runMark(n)) {
			found++
		}
	}
	if err := l.Teardown(t.Context(), resource.Remove); err != nil {
		t.Fatal(err)
	}
	return found
}

// TestDMDiskKilledAtEveryStep kills the process at each write of its ledger. After
// the recovery no device is left, the disk has all written data, and the image's
// disk is unchanged.
func TestDMDiskKilledAtEveryStep(t *testing.T) {
	requireDeviceMapper(t)
	w := dmTest{t.TempDir()}
	image, data := patternDisk(t, w.root, dmTestSize/2)
	if image != w.image() {
		t.Fatal("the image has another path")
	}
	if err := w.runProcess(t, 0); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(w.writes())
	writes, bad := strconv.Atoi(string(text))
	if err != nil || bad != nil || writes < 20 {
		t.Fatalf("%q writes of the ledger, want one or more for each step (%v)", text, err)
	}
	most, kept := 0, 0
	for at := 1; at <= writes; at++ {
		wrote := 0
		if err := os.RemoveAll(w.dir()); err != nil {
			t.Fatal(err)
		}
		for n := range dmRuns {
			if err := os.RemoveAll(w.written(n)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.runProcess(t, at); err == nil {
			t.Fatalf("write %d of %d: it was not killed", at, writes)
		}
		for n := range dmRuns {
			if _, err := os.Stat(w.written(n)); err == nil {
				wrote++
			}
		}
		most = max(most, len(devices(t, w.dir())))
		// The last write follows the removal of the files.
		if found := w.recoverRuns(t); found != wrote && at < writes {
			t.Errorf("write %d of %d: %d runs have written, the disk has the data of %d", at, writes, wrote, found)
		} else {
			kept += found
		}
		if got := append(devices(t, w.dir()), slices.DeleteFunc(leftFiles(t, w.dir()), func(name string) bool {
			return name == filepath.Base(w.record())
		})...); len(got) > 0 {
			t.Fatalf("write %d of %d: left %q", at, writes, got)
		}
	}
	if got, err := os.ReadFile(w.image()); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the image's disk was written (%v)", err)
	}
	// The listing must have shown the devices while they existed.
	if most < 4 || kept == 0 {
		t.Errorf("at most %d devices before a recovery, %d runs with data after it: want 4, and some", most, kept)
	}
}
