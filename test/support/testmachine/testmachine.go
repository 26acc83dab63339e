// Package testmachine makes machines in the states that tests need: locked by the
// test, or as a killed supervisor has left them. It starts no supervisor.
package testmachine

import (
	"archive/tar"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/machine/ledger"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/spec"
	"github.com/banger-vm/banger/test/support/tinyimage"
)

// Kernel is the digest that the records of test machines have for their kernel.
const Kernel = digest.Digest("sha256:1111111111111111111111111111111111111111111111111111111111111111")

// Image returns a small image whose command is /bin/true.
func Image() *store.Image {
	img := &store.Image{ID: "sha256:2222222222222222222222222222222222222222222222222222222222222222"}
	img.Config.Cmd = []string{"/bin/true"}
	return img
}

// ImageDisk makes the disk of Image and returns its path.
func ImageDisk(t testing.TB) string {
	t.Helper()
	return tinyimage.Disk(t, []tinyimage.File{tinyimage.Entry("bin/true", tinyimage.Program(tinyimage.AMD64), 0o755, tar.TypeReg)})
}

// Folders returns the paths of a data folder, which does not exist yet, and of a
// runtime folder for it.
func Folders(t testing.TB) (data, runtime string) {
	t.Helper()
	dir := t.TempDir()
	runtime = filepath.Join(dir, "run")
	if err := os.Mkdir(runtime, 0o700); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "data"), runtime
}

// OpenRoot opens the root in new folders.
func OpenRoot(t testing.TB) *record.Root {
	t.Helper()
	root, err := record.OpenRoot(Folders(t))
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// Lock makes a running machine without a disk, and locks it for the test as a
// supervisor does. change may be nil, or changes the record before it is written.
func Lock(t testing.TB, root *record.Root, name string, change func(*record.Record)) (*record.Record, *record.Folder) {
	t.Helper()
	id, err := record.NewID()
	if err != nil {
		t.Fatal(err)
	}
	rec := &record.Record{ID: id, Config: spec.Config{Name: name}, Created: time.Now().UTC(), State: record.StateRunning}
	if change != nil {
		change(rec)
	}
	if err := errors.Join(os.Mkdir(root.DataDir(id), 0o700), os.Mkdir(root.RuntimeDir(id), 0o700)); err != nil {
		t.Fatal(err)
	}
	dir, err := root.Lock(id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.New(dir.Data, id, dir.LedgerRecord(rec)); err != nil {
		t.Fatal(err)
	}
	return rec, dir
}

// CheckEmpty asserts that no file of a machine is left in root.
func CheckEmpty(t testing.TB, root *record.Root) {
	t.Helper()
	for _, dir := range []string{root.Machines(), root.Runtime()} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Name() != ".lock" {
				t.Errorf("%s is left in %s", e.Name(), dir)
			}
		}
	}
}

// LedgerEntries returns the entries of a machine's ledger. It asserts that the
// ledger's file and its copy in the record are intact and equal.
func LedgerEntries(t testing.TB, root *record.Root, id string) []ledger.Entry {
	t.Helper()
	rec, err := record.Read(root.DataDir(id))
	if err != nil {
		t.Fatal(err)
	}
	file, damaged, err := ledger.Read(root.DataDir(id), id, nil)
	if err != nil || len(damaged) > 0 {
		t.Fatal(damaged, err)
	}
	section, damaged, err := ledger.Read(t.TempDir(), id, rec.Runtime)
	if err != nil || len(damaged) > 0 {
		t.Fatal(damaged, err)
	}
	if !slices.Equal(file, section) {
		t.Errorf("handles.json has %v, the record %v", file, section)
	}
	return file
}
