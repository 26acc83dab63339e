package resource

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/banger-vm/banger/internal/machine/ledger"
)

// TestMakingTwiceKeepsTheFirst makes a resource twice. The second call fails and
// must not strike the entry of the first: its resource would leak.
func TestMakingTwiceKeepsTheFirst(t *testing.T) {
	tm := newTestMachine(t)
	m := tm.maker(t)
	e := ledger.Entry{Kind: ledger.Tap, Name: "bgr"}
	if err := m.make(t.Context(), e, func(*ledger.Entry) error { return nil }); err != nil {
		t.Fatal(err)
	}
	first := m.Ledger.Entries()
	if len(first) != 1 {
		t.Fatalf("entries = %v, want one", first)
	}
	err := m.make(t.Context(), e, func(*ledger.Entry) error {
		t.Error("the resource was made twice")
		return nil
	})
	if !errors.Is(err, ledger.ErrRefused) {
		t.Errorf("second: %v, want ErrRefused", err)
	}
	if got := m.Ledger.Entries(); !slices.Equal(got, first) {
		t.Errorf("entries = %v, want %v", got, first)
	}
}

// TestFilesInTwoWrites makes two files. The ledger is written once before they are
// made and once after.
func TestFilesInTwoWrites(t *testing.T) {
	tm := openTestMachine(t.TempDir(), machineID())
	m, writes := tm.countingMaker(t)
	paths := []string{filepath.Join(tm.dir(), "base"), filepath.Join(tm.dir(), "cow")}
	err := m.Files(t.Context(), ledger.Disk, paths, func() error {
		noted, _, err := ledger.Read(tm.dir(), tm.id, nil)
		if err != nil || len(noted) != 2 || *writes != 1 {
			t.Errorf("noted %v in %d writes, %v", noted, *writes, err)
		}
		return errors.Join(os.WriteFile(paths[0], nil, 0o600), os.WriteFile(paths[1], nil, 0o600))
	})
	if err != nil || *writes != 2 {
		t.Errorf("%d writes, %v", *writes, err)
	}
	for i, e := range m.Ledger.Entries() {
		if e.Path != paths[i] || e.File.Ino == 0 {
			t.Errorf("entry %+v", e)
		}
	}
	if err := m.Ledger.Teardown(t.Context(), Remove); err != nil || len(m.Ledger.Entries()) > 0 {
		t.Errorf("teardown: %v, entries %v", err, m.Ledger.Entries())
	}
	if left, err := filepath.Glob(filepath.Join(tm.dir(), "[bc]*")); err != nil || len(left) > 0 {
		t.Errorf("left: %q, %v", left, err)
	}
}

// TestFilesThatFail makes files by a function that fails after the first one. No
// file and no entry is left.
func TestFilesThatFail(t *testing.T) {
	errStop := errors.New("stop")
	for _, row := range []struct {
		name   string
		create func(first string) error
		want   error
	}{
		{"with an error", func(first string) error { return errors.Join(os.WriteFile(first, nil, 0o600), errStop) }, errStop},
		{"with a missing file", func(first string) error { return os.WriteFile(first, nil, 0o600) }, os.ErrNotExist},
	} {
		t.Run(row.name, func(t *testing.T) {
			tm := openTestMachine(t.TempDir(), machineID())
			m := tm.maker(t)
			paths := []string{filepath.Join(tm.dir(), "base"), filepath.Join(tm.dir(), "cow")}
			err := m.Files(t.Context(), ledger.Disk, paths, func() error { return row.create(paths[0]) })
			if !errors.Is(err, row.want) || len(m.Ledger.Entries()) > 0 {
				t.Errorf("%v, want %v; entries %v", err, row.want, m.Ledger.Entries())
			}
			if _, err := os.Lstat(paths[0]); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the first file is left: %v", err)
			}
		})
	}
}

// TestFilesRefuse makes files at paths that Files refuses. It notes no entry and
// leaves files that exist alone.
func TestFilesRefuse(t *testing.T) {
	tm := openTestMachine(t.TempDir(), machineID())
	m, writes := tm.countingMaker(t)
	existing := backing(t, tm.dir(), "disk")
	never := func() error {
		t.Error("create was called")
		return nil
	}
	for _, paths := range [][]string{
		nil, {filepath.Join(tm.dir(), "new"), existing}, {filepath.Join(tm.dir(), "new"), "/etc/x"},
		{filepath.Join(tm.dir(), "new"), filepath.Join(tm.dir(), "new")},
	} {
		if err := m.Files(t.Context(), ledger.Disk, paths, never); err == nil || *writes > 0 {
			t.Errorf("%q: %v, %d writes", paths, err, *writes)
		}
	}
	if _, err := os.Lstat(existing); err != nil {
		t.Error(err)
	}
}

// countingMaker returns a Maker for the machine and the number of its ledger
// writes.
func (tm testMachine) countingMaker(t *testing.T) (Maker, *int) {
	t.Helper()
	if err := os.MkdirAll(tm.dir(), 0o700); err != nil {
		t.Fatal(err)
	}
	writes := 0
	l, err := ledger.New(tm.dir(), tm.id, ledger.Record{Write: func(section json.RawMessage) error {
		writes++
		return tm.writeRecord(section)
	}})
	if err != nil {
		t.Fatal(err)
	}
	writes = 0
	return Maker{l, tm.owner}, &writes
}
