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

// needMapper skips the test where the kernel has no device mapper; `make
// test-vm` runs it where there must be one.
func needMapper(t *testing.T) {
	t.Helper()
	err := resource.CheckSnapshots()
	if err != nil && os.Getenv("BANGER_TEST_DM") != "" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skip(err)
	}
	needTools(t, "losetup", "dmsetup")
}

// devices lists what the kernel has of the machine in dir, without the package
// under test.
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

// randomDisk stands for an image's disk: no two sectors of it are alike.
func randomDisk(t *testing.T, dir string, size int) (path string, data []byte) {
	t.Helper()
	data = pattern(size, 1)
	path = filepath.Join(dir, "image")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, data
}

func pattern(size int, seed byte) []byte {
	out := make([]byte, 0, size)
	for n := 0; len(out) < size; n++ {
		sector := bytes.Repeat([]byte{seed}, resource.SectorSize)
		copy(sector, strconv.Itoa(n))
		out = append(out, sector...)
	}
	return out[:size]
}

// writeDevice writes to a device and through it to what is below.
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

// detached gives back all but the files, and wants no device to be left.
func detached(t *testing.T, mk resource.Maker, dir string) {
	t.Helper()
	if err := mk.Ledger.Teardown(t.Context(), resource.Remove, ledger.Disk, ledger.Folder); err != nil {
		t.Fatal(err)
	}
	if got := devices(t, dir); len(got) > 0 {
		t.Fatalf("after the teardown: %q", got)
	}
}

// TestDMDisk lives two lives of a machine on one disk: what the first writes
// the second finds, up to the last byte, and the image's disk stays as it is.
func TestDMDisk(t *testing.T) {
	needMapper(t)
	const size = 3 << 20
	for _, row := range []struct {
		name string
		size int64
	}{{"as large as the image's", size}, {"larger", 5 << 20}, {"larger by a sector", size + resource.SectorSize}} {
		t.Run(row.name, func(t *testing.T) {
			root := t.TempDir()
			image, data := randomDisk(t, root, size)
			mk, dir := holder(t, root, nothing)
			d, err := Make(t.Context(), mk, image, dir, Options{Driver: spec.DM, Size: row.size})
			if err != nil || d.Driver != spec.DM || d.Size != row.size {
				t.Fatalf("disk = %+v, %v", d, err)
			}
			dev, err := d.Attach(t.Context(), mk, dir)
			if err != nil || !dev.Device || dev.ReadOnly || dev.Backing != "" {
				t.Fatalf("device = %+v, %v", dev, err)
			}
			if got, want := len(devices(t, dir)), 3; got < want {
				t.Errorf("%d devices are seen, want %d or more", got, want)
			}
			want := append(slices.Clone(data), make([]byte, row.size-size)...)
			if got, err := os.ReadFile(dev.Path); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes that are not the image's, %v", len(got), err)
			}
			want = pattern(int(row.size), 2) // all of it, which is as many changes as there can be
			writeDevice(t, dev.Path, want, 0)
			detached(t, mk, dir)
			dev, err = d.Attach(t.Context(), mk, dir)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(dev.Path); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes that are not what was written, %v", len(got), err)
			}
			writeDevice(t, dev.Path, []byte("once more"), row.size-9)
			detached(t, mk, dir)
			if got, err := os.ReadFile(image); err != nil || !bytes.Equal(got, data) {
				t.Errorf("the image's disk was written (%v)", err)
			}
			if err := mk.Ledger.Teardown(t.Context(), resource.Remove); err != nil {
				t.Error(err)
			}
			if got := left(t, dir); len(got) > 0 || len(mk.Ledger.Entries()) > 0 {
				t.Errorf("left: %q, entries %v", got, mk.Ledger.Entries())
			}
		})
	}
}

// TestDMDisksOfOneImage: two machines on one image do not see each other's
// changes.
func TestDMDisksOfOneImage(t *testing.T) {
	needMapper(t)
	root := t.TempDir()
	image, data := randomDisk(t, root, 1<<20)
	var paths []string
	for n := range 2 {
		mk, dir := holderOf(t, root, fmt.Sprintf("%011x%d", os.Getpid(), n), nothing)
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
		writeDevice(t, dev.Path, dmLifeMark(n), int64(n)*4096)
		paths = append(paths, dev.Path)
	}
	for n, path := range paths {
		want := slices.Clone(data)
		copy(want[n*4096:], dmLifeMark(n))
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("machine %d: %d bytes that are not its own, %v", n, len(got), err)
		}
	}
}

// TestDMDiskTakesNoSpace: the file of changes takes none until there are some.
func TestDMDiskTakesNoSpace(t *testing.T) {
	needMapper(t)
	root := t.TempDir()
	image, _ := randomDisk(t, root, 1<<20)
	mk, dir := holder(t, root, nothing)
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
	detached(t, mk, dir)
	if got := Allocated(cow); got == 0 || got > 1<<20 {
		t.Errorf("one changed page takes %d bytes", got)
	}
}

// dmLifeVariable makes this binary live a machine's life on a dm disk: the data
// folder, and the number of the write of the ledger at which it kills itself,
// 0 for none.
const dmLifeVariable = "BANGER_TEST_DM_LIFE"

// TestDMLife is no test, but the process that TestDMDiskKilledAtEveryStep
// kills.
func TestDMLife(t *testing.T) {
	job := os.Getenv(dmLifeVariable)
	if job == "" {
		return
	}
	root, number, _ := strings.Cut(job, ",")
	at, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	w := dmLife{root}
	writes := 0
	l, err := ledger.New(w.dir(), dmLifeID, ledger.Record{Write: func(section json.RawMessage) error {
		if writes++; writes == at {
			return errors.Join(syscall.Kill(os.Getpid(), syscall.SIGKILL), wait())
		}
		return atomicfile.Write(w.record(), section, 0o600)
	}})
	if err != nil {
		t.Fatal(err)
	}
	mk := resource.Maker{Ledger: l, Owner: w.owner(t)}
	d, err := Make(t.Context(), mk, w.image(), w.dir(), Options{Driver: spec.DM, Size: dmLifeSize})
	if err != nil {
		t.Fatal(err)
	}
	for n := range dmLives {
		dev, err := d.Attach(t.Context(), mk, w.dir())
		if err != nil {
			t.Fatal(err)
		}
		writeDevice(t, dev.Path, dmLifeMark(n), int64(n)*4096)
		if err := os.WriteFile(w.done(n), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		detached(t, mk, w.dir())
	}
	if err := errors.Join(l.Teardown(t.Context(), resource.Remove), os.WriteFile(w.count(), []byte(strconv.Itoa(writes)), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// wait is where a process is when its own SIGKILL comes.
func wait() error { select {} }

const (
	dmLifeID   = "d0d0d0d0d0d0"
	dmLifeSize = 2 << 20
	dmLives    = 2
)

// A dmLife is the data folder of the machine that TestDMLife is.
type dmLife struct{ root string }

func (w dmLife) dir() string       { return filepath.Join(w.root, "machines", dmLifeID) }
func (w dmLife) record() string    { return filepath.Join(w.dir(), "section.json") }
func (w dmLife) image() string     { return filepath.Join(w.root, "image") }
func (w dmLife) count() string     { return filepath.Join(w.root, "count") }
func (w dmLife) done(n int) string { return filepath.Join(w.root, "done-"+strconv.Itoa(n)) }

func dmLifeMark(n int) []byte { return []byte(fmt.Sprintf("life %d wrote this", n)) }

func (w dmLife) owner(t *testing.T) ledger.Owner {
	t.Helper()
	owner, err := ledger.NewOwner(dmLifeID, w.root)
	if err != nil {
		t.Fatal(err)
	}
	return owner
}

// run lives the life, and returns how its process ended.
func (w dmLife) run(t *testing.T, at int) error {
	t.Helper()
	if err := os.MkdirAll(w.dir(), 0o700); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestDMLife$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s,%d", dmLifeVariable, w.root, at))
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState.ExitCode() >= 0 {
		t.Fatalf("%v: %s", err, out)
	}
	return err
}

// recovered is what a daemon does with a machine whose owner was killed, and
// then what its user may do: look at the disk. It returns how many of the
// lives are in it.
func (w dmLife) recovered(t *testing.T) int {
	t.Helper()
	section, err := os.ReadFile(w.record())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	l, _, err := ledger.Open(w.dir(), dmLifeID, ledger.Record{Section: section, Write: func(s json.RawMessage) error {
		return atomicfile.Write(w.record(), s, 0o600)
	}})
	if errors.Is(err, ledger.ErrNoLedger) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	mk := resource.Maker{Ledger: l, Owner: w.owner(t)}
	detached(t, mk, w.dir())
	d := Disk{Driver: spec.DM, File: cowFile, Size: dmLifeSize}
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
	for n := range dmLives {
		if bytes.Contains(data, dmLifeMark(n)) {
			found++
		}
	}
	if err := l.Teardown(t.Context(), resource.Remove); err != nil {
		t.Fatal(err)
	}
	return found
}

// TestDMDiskKilledAtEveryStep: whenever the owner is killed, nothing is left
// of the devices, what was written is there, and the image's disk is as it was.
func TestDMDiskKilledAtEveryStep(t *testing.T) {
	needMapper(t)
	w := dmLife{t.TempDir()}
	image, data := randomDisk(t, w.root, dmLifeSize/2)
	if image != w.image() {
		t.Fatal("the image lies elsewhere")
	}
	if err := w.run(t, 0); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(w.count())
	writes, bad := strconv.Atoi(string(text))
	if err != nil || bad != nil || writes < 20 {
		t.Fatalf("%q writes of the ledger in a life, want one or more for each step (%v)", text, err)
	}
	most, kept := 0, 0
	for at := 1; at <= writes; at++ {
		wrote := 0
		if err := os.RemoveAll(w.dir()); err != nil {
			t.Fatal(err)
		}
		for n := range dmLives {
			if err := os.RemoveAll(w.done(n)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.run(t, at); err == nil {
			t.Fatalf("write %d of %d: it was not killed", at, writes)
		}
		for n := range dmLives {
			if _, err := os.Stat(w.done(n)); err == nil {
				wrote++
			}
		}
		most = max(most, len(devices(t, w.dir())))
		// The last write follows the removal of the files.
		if found := w.recovered(t); found != wrote && at < writes {
			t.Errorf("write %d of %d: %d lives have written, %d are in the disk", at, writes, wrote, found)
		} else {
			kept += found
		}
		if got := append(devices(t, w.dir()), slices.DeleteFunc(left(t, w.dir()), func(name string) bool {
			return name == filepath.Base(w.record())
		})...); len(got) > 0 {
			t.Fatalf("write %d of %d: left %q", at, writes, got)
		}
	}
	if got, err := os.ReadFile(w.image()); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the image's disk was written (%v)", err)
	}
	// The listing must have seen what there was to see.
	if most < 4 || kept == 0 {
		t.Errorf("at most %d devices before a recovery, %d times data after it: want 4, and some", most, kept)
	}
}
