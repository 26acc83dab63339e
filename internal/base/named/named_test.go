package named

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/base/digest"
)

type record struct {
	id    digest.Digest
	names []string
	added time.Time
}

func (r *record) Label() Label { return Label{ID: r.id, Names: &r.names, Added: r.added} }

// newRecord returns a record whose ID repeats a digit, added the given number of seconds after the epoch.
func newRecord(digit string, added int64, names ...string) *record {
	return &record{id: digest.Digest("sha256:" + strings.Repeat(digit, 64)), names: names, added: time.Unix(added, 0)}
}

// list writes an empty file for each record, and lists them by their names.
func list(t *testing.T, byFile map[string]func() (*record, error)) (records []*record, damaged []error) {
	t.Helper()
	dir := t.TempDir()
	for name := range byFile {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	isRecord := func(e fs.DirEntry) bool { return e.Name() != "other" }
	records, damaged, err := List(dir, isRecord, func(path string) (*record, error) { return byFile[filepath.Base(path)]() })
	if err != nil {
		t.Fatal(err)
	}
	return records, damaged
}

func TestListIsNewestFirstAndKeepsNamesUnique(t *testing.T) {
	old, newer, same := newRecord("a", 1, "x", "y"), newRecord("c", 2, "y", "z"), newRecord("b", 2, "z")
	give := func(r *record) func() (*record, error) { return func() (*record, error) { return r, nil } }
	broken := errors.New("broken")
	records, damaged := list(t, map[string]func() (*record, error){
		"1": give(old), "2": give(newer), "3": give(same), "other": give(nil), ".hidden": give(nil),
		"removed": func() (*record, error) { return nil, fs.ErrNotExist },
		"broken":  func() (*record, error) { return nil, broken },
	})
	if want := []*record{same, newer, old}; !slices.Equal(records, want) {
		t.Errorf("order %v, want %v", records, want)
	}
	for r, want := range map[*record][]string{same: {"z"}, newer: {"y"}, old: {"x"}} {
		if !slices.Equal(r.names, want) {
			t.Errorf("%s has the names %q, want %q", r.id.Short(), r.names, want)
		}
	}
	if len(damaged) != 1 || !errors.Is(damaged[0], broken) {
		t.Errorf("damaged %v, want %v", damaged, broken)
	}
}

func TestListReportsAMissingFolder(t *testing.T) {
	_, _, err := List(filepath.Join(t.TempDir(), "none"), fs.DirEntry.IsDir, func(string) (*record, error) { return nil, nil })
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want %v", err, fs.ErrNotExist)
	}
}

func TestByName(t *testing.T) {
	records := []*record{newRecord("a", 1, "x"), newRecord("b", 1, "y", "z")}
	if r, ok := ByName(records, "z"); !ok || r != records[1] {
		t.Errorf("z is of %v, %v", r, ok)
	}
	if r, ok := ByName(records, "none"); ok || r != nil {
		t.Errorf("none is of %v, %v", r, ok)
	}
}

func TestHasPrefix(t *testing.T) {
	r := newRecord("a", 1)
	for ref, want := range map[string]bool{
		"aaaa": true, "sha256:aaaa": true, string(r.id): true, r.id.Hex(): true,
		"aaa": false, "sha256:aaa": false, "aaab": false, "": false, r.id.Hex() + "a": false,
	} {
		if got := HasPrefix(r, ref); got != want {
			t.Errorf("%q: %v, want %v", ref, got, want)
		}
	}
}

func TestShortIDs(t *testing.T) {
	if got, want := ShortIDs([]*record{newRecord("a", 1), newRecord("b", 1)}), "aaaaaaaaaaaa, bbbbbbbbbbbb"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestTakeNamesWritesTheRecordsThatLoseOne(t *testing.T) {
	owner, loser, other := newRecord("a", 1, "x", "y"), newRecord("b", 1, "y", "z"), newRecord("c", 1, "w")
	var written []*record
	err := TakeNames([]*record{owner, loser, other}, owner, func(r *record) error {
		written = append(written, r)
		return nil
	})
	if err != nil || !slices.Equal(written, []*record{loser}) {
		t.Errorf("written %v, error %v; want %v", written, err, loser)
	}
	if !slices.Equal(owner.names, []string{"x", "y"}) || !slices.Equal(loser.names, []string{"z"}) {
		t.Errorf("names %q and %q", owner.names, loser.names)
	}
	broken := errors.New("broken")
	if err := TakeNames([]*record{newRecord("b", 1, "x")}, owner, func(*record) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
}
