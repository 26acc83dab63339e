package repair_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/machine"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/repair"
	"github.com/banger-vm/banger/internal/machine/spec"
	"github.com/banger-vm/banger/test/support/testmachine"
)

// A fixture has the root under test and the store that makes machines in it.
type fixture struct {
	root  *record.Root
	store *machine.Store
}

func newFixture(t *testing.T) fixture {
	t.Helper()
	data, runtime := testmachine.Folders(t)
	store, err := machine.Open(data, runtime)
	if err != nil {
		t.Fatal(err)
	}
	root, err := record.OpenRoot(data, runtime)
	if err != nil {
		t.Fatal(err)
	}
	return fixture{root, store}
}

// create makes a machine with a disk and returns its ID.
func (f fixture) create(t *testing.T, name string) string {
	t.Helper()
	rec, _, err := f.store.Create(t.Context(), machine.Options{
		Config: spec.Config{Name: name, ReadOnly: true}, Image: testmachine.Image(), ImageName: "tiny",
		DiskPath: testmachine.ImageDisk(t), Kernel: testmachine.Kernel,
	})
	if err != nil {
		t.Fatal(err)
	}
	return rec.ID
}

// kill makes a machine with a disk, as a supervisor that was killed in the given
// state has left it.
func (f fixture) kill(t *testing.T, name string, state record.State) *testmachine.Killed {
	t.Helper()
	return testmachine.Kill(t, f.root, f.create(t, name), state)
}

// lock locks a machine until the test ends.
func (f fixture) lock(t *testing.T, id string) *record.Folder {
	t.Helper()
	dir, err := f.root.Lock(id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir
}

func (f fixture) reconcile(t *testing.T) repair.Report {
	t.Helper()
	r, err := repair.Reconcile(t.Context(), f.root)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (f fixture) examine(t *testing.T) repair.Report {
	t.Helper()
	r, err := repair.Examine(t.Context(), f.root)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// files returns the paths and the contents of the files of all machines.
func (f fixture) files(t *testing.T) string {
	t.Helper()
	return readTree(t, f.root.Path()) + readTree(t, f.root.Runtime())
}

// readTree returns the paths and the contents of the files below folder, and the
// size and the time of a file of more than 4 MiB.
func readTree(t *testing.T, folder string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(folder, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.Name() == ".lock" { // the lock of the folder is no machine's
			return err
		}
		if d.IsDir() {
			fmt.Fprintln(&b, path)
			return nil
		}
		info, err := d.Info()
		if err == nil && info.Size() > 4<<20 { // a disk
			fmt.Fprintln(&b, path, info.Size(), info.ModTime())
			return nil
		}
		data, readErr := os.ReadFile(path)
		fmt.Fprintf(&b, "%s %q\n", path, data)
		return errors.Join(err, readErr)
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// damages are the ways in which the tests damage a file.
var damages = []struct {
	name   string
	change func(data []byte) []byte // nil removes the file
}{
	{"missing", nil},
	{"empty", func([]byte) []byte { return []byte{} }},
	{"truncated", func(data []byte) []byte { return data[:len(data)/2] }},
	{"garbage", func([]byte) []byte { return []byte("\x00\xff{]") }},
	{"another machine's", func(data []byte) []byte {
		return replaceFields(data, map[string]any{"id": "ffffffffffff", "machine": "ffffffffffff"})
	}},
	{"newer", func(data []byte) []byte { return replaceFields(data, map[string]any{"schema": 99, "state": 7}) }},
}

// replaceFields changes those of the fields that the JSON object data has.
func replaceFields(data []byte, fields map[string]any) []byte {
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		panic(err)
	}
	for name, value := range fields {
		if _, ok := m[name]; ok {
			m[name] = value
		}
	}
	data, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return data
}

// damage replaces the content of a file by change of it, or removes the file if
// change is nil.
func damage(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil && change == nil {
		err = os.Remove(path)
	} else if err == nil {
		err = os.WriteFile(path, change(data), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
