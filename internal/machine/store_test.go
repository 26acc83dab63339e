package machine

import (
	"errors"
	"fmt"
	"math"
	"os"
	"testing"

	"github.com/banger-vm/banger/internal/machine/ledger"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/repair"
	"github.com/banger-vm/banger/internal/machine/spec"
	"github.com/banger-vm/banger/test/support/testmachine"
)

// openStore opens a store in new folders.
func openStore(t testing.TB) *Store {
	t.Helper()
	s, err := Open(testmachine.Folders(t))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// options returns the options for a machine of a small image. Its disk is
// read-only, which needs no tool, unless the test changes that.
func options(t testing.TB, name string) Options {
	t.Helper()
	return optionsFor(testmachine.ImageDisk(t), name)
}

// optionsFor is options with an existing image disk.
func optionsFor(disk, name string) Options {
	return Options{
		Config: spec.Config{Name: name, ReadOnly: true}, Image: testmachine.Image(), ImageName: "tiny", DiskPath: disk, Kernel: testmachine.Kernel,
	}
}

func (s *Store) mustCreate(t testing.TB, o Options) *record.Record {
	t.Helper()
	rec, _, err := s.Create(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

func (s *Store) mustReconcile(t *testing.T) repair.Report {
	t.Helper()
	r, err := s.Reconcile(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// isErr returns a function that reports whether an error is target.
func isErr(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

// asErr returns a function that reports whether an error has the type that target
// points to.
func asErr(target any) func(error) bool {
	return func(err error) bool { return errors.As(err, target) }
}

// TestNamesAreUnique checks that a second machine cannot have a name, and the
// references by which Find finds a machine.
func TestNamesAreUnique(t *testing.T) {
	s := openStore(t)
	rec, dir := testmachine.Lock(t, s.root, "box", nil)
	defer dir.Close()
	_, err := s.enter(t.Context(), &record.Record{ID: "0123456789ab", Config: spec.Config{Name: "box"}, State: record.StateCreated})
	if !errors.Is(err, record.ErrNameTaken) {
		t.Fatalf("error = %v, want record.ErrNameTaken", err)
	}
	for _, ref := range []string{"box", rec.ID, rec.ID[:5]} {
		got, err := s.Find(ref)
		if err != nil || got.ID != rec.ID {
			t.Errorf("Find(%q) = %v, %v", ref, got, err)
		}
	}
	if _, err := s.Find(""); !errors.Is(err, record.ErrNotFound) {
		t.Errorf("Find of no name: %v", err)
	}
}

func TestRename(t *testing.T) {
	s := openStore(t)
	o := options(t, "box")
	rec := s.mustCreate(t, o)
	o.Name = "other"
	s.mustCreate(t, o)
	var input *spec.InputError
	for _, row := range []struct {
		name, id, to string
		is           func(error) bool
	}{
		{"the name of another machine", rec.ID, "other", isErr(record.ErrNameTaken)},
		{"not a name", rec.ID, "a/b", asErr(&input)},
		{"an ID", rec.ID, "0123456789ab", asErr(&input)},
		{"of no machine", "0123456789ab", "new", isErr(record.ErrNotFound)},
		{"its own name", rec.ID, "box", isErr(nil)},
		{"a new name", rec.ID, "new", isErr(nil)},
	} {
		t.Run(row.name, func(t *testing.T) {
			if err := s.Rename(t.Context(), row.id, row.to); !row.is(err) {
				t.Errorf("error = %v", err)
			}
		})
	}
	if got, err := s.Find("new"); err != nil || got.ID != rec.ID {
		t.Errorf("Find = %v, %v", got, err)
	}
	if _, err := s.Find("box"); !errors.Is(err, record.ErrNotFound) {
		t.Errorf("the old name: %v", err)
	}
	testmachine.LedgerEntries(t, s.root, rec.ID)
}

// BenchmarkCreateRemove measures Create and Remove together. Each of the two may
// take 50 ms.
func BenchmarkCreateRemove(b *testing.B) {
	for _, others := range []int{0, 1000} {
		b.Run(fmt.Sprint(others, "others"), func(b *testing.B) {
			s := openStore(b)
			s.Limits.Machines = math.MaxInt
			o := options(b, "")
			s.fill(b, others)
			for b.Loop() {
				rec, _, err := s.Create(b.Context(), o)
				if err == nil {
					err = s.Remove(b.Context(), rec.ID)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// fill writes the folders of n machines that have ended.
func (s *Store) fill(b testing.TB, n int) {
	b.Helper()
	rec := s.mustCreate(b, options(b, ""))
	for i := range n {
		o := *rec
		o.ID, o.Config.Name, o.State = fmt.Sprintf("%012x", i), fmt.Sprint("m", i), record.StateExited
		dir := s.root.DataDir(o.ID)
		if err := os.Mkdir(dir, 0o700); err != nil {
			b.Fatal(err)
		}
		if _, err := ledger.New(dir, o.ID, (&record.Folder{Data: dir}).LedgerRecord(&o)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMachines lists and repairs a thousand machines. A new store decodes all
// records for its first list, and later lists find them in the cache of records.
func BenchmarkMachines(b *testing.B) {
	s := openStore(b)
	const count = 1000
	s.fill(b, count)
	b.Run("first-list", func(b *testing.B) {
		for b.Loop() {
			first, err := Open(s.root.Path(), s.root.Runtime())
			if err != nil {
				b.Fatal(err)
			}
			if records, _, err := first.Machines(); err != nil || len(records) <= count {
				b.Fatal(len(records), err)
			}
		}
	})
	b.Run("list", func(b *testing.B) {
		for b.Loop() {
			if records, _, err := s.Machines(); err != nil || len(records) <= count {
				b.Fatal(len(records), err)
			}
		}
	})
	b.Run("reconcile", func(b *testing.B) {
		for b.Loop() {
			if r, err := s.Reconcile(b.Context()); err != nil || len(r.Machines) > 0 {
				b.Fatal(r.Machines, err)
			}
		}
	})
}
