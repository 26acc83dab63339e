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

// TestMakingTwiceKeepsTheFirst: an entry that is struck while its resource
// lives is a leak.
func TestMakingTwiceKeepsTheFirst(t *testing.T) {
	w := newWorld(t)
	m := w.maker(t)
	e := ledger.Entry{Kind: ledger.Tap, Name: "bgr"}
	if err := m.make(t.Context(), e, func(*ledger.Entry) error { return nil }); err != nil {
		t.Fatal(err)
	}
	first := m.Ledger.Entries()
	if len(first) != 1 {
		t.Fatalf("entries = %v, want one", first)
	}
	err := m.make(t.Context(), e, func(*ledger.Entry) error {
		t.Error("it was made twice")
		return nil
	})
	if !errors.Is(err, ledger.ErrRefused) {
		t.Errorf("second: %v, want ErrRefused", err)
	}
	if got := m.Ledger.Entries(); !slices.Equal(got, first) {
		t.Errorf("entries = %v, want %v", got, first)
	}
}

// TestFilesInTwoWrites: however many they are, the ledger is written once
// before they are made and once after.
func TestFilesInTwoWrites(t *testing.T) {
	w := openWorld(t.TempDir(), machineID())
	m, writes := w.counted(t)
	paths := []string{filepath.Join(w.dir(), "base"), filepath.Join(w.dir(), "cow")}
	err := m.Files(t.Context(), ledger.Disk, paths, func() error {
		noted, _, err := ledger.Read(w.dir(), w.id, nil)
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
	if left, err := filepath.Glob(filepath.Join(w.dir(), "[bc]*")); err != nil || len(left) > 0 {
		t.Errorf("left: %q, %v", left, err)
	}
}

// TestFilesThatFail: of those that were made none stays, and none is entered.
func TestFilesThatFail(t *testing.T) {
	errStop := errors.New("stop")
	for _, row := range []struct {
		name   string
		create func(first string) error
		want   error
	}{
		{"with an error", func(first string) error { return errors.Join(os.WriteFile(first, nil, 0o600), errStop) }, errStop},
		{"with one that was not made", func(first string) error { return os.WriteFile(first, nil, 0o600) }, os.ErrNotExist},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := openWorld(t.TempDir(), machineID())
			m := w.maker(t)
			paths := []string{filepath.Join(w.dir(), "base"), filepath.Join(w.dir(), "cow")}
			err := m.Files(t.Context(), ledger.Disk, paths, func() error { return row.create(paths[0]) })
			if !errors.Is(err, row.want) || len(m.Ledger.Entries()) > 0 {
				t.Errorf("%v, want %v; entries %v", err, row.want, m.Ledger.Entries())
			}
			if _, err := os.Lstat(paths[0]); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the first is left: %v", err)
			}
		})
	}
}

// TestFilesRefuse: what is there already is not touched, and nothing is noted.
func TestFilesRefuse(t *testing.T) {
	w := openWorld(t.TempDir(), machineID())
	m, writes := w.counted(t)
	there := backing(t, w.dir(), "disk")
	never := func() error {
		t.Error("they were made")
		return nil
	}
	for _, paths := range [][]string{
		nil, {filepath.Join(w.dir(), "new"), there}, {filepath.Join(w.dir(), "new"), "/etc/x"},
		{filepath.Join(w.dir(), "new"), filepath.Join(w.dir(), "new")},
	} {
		if err := m.Files(t.Context(), ledger.Disk, paths, never); err == nil || *writes > 0 {
			t.Errorf("%q: %v, %d writes", paths, err, *writes)
		}
	}
	if _, err := os.Lstat(there); err != nil {
		t.Error(err)
	}
}

// counted is a maker whose writes of the ledger are counted.
func (w world) counted(t *testing.T) (Maker, *int) {
	t.Helper()
	if err := os.MkdirAll(w.dir(), 0o700); err != nil {
		t.Fatal(err)
	}
	writes := 0
	l, err := ledger.New(w.dir(), w.id, ledger.Record{Write: func(section json.RawMessage) error {
		writes++
		return w.writeRecord(section)
	}})
	if err != nil {
		t.Fatal(err)
	}
	writes = 0
	return Maker{l, w.owner}, &writes
}
