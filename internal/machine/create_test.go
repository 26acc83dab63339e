package machine

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/machine/bootplan"
	"github.com/banger-vm/banger/internal/machine/ledger"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/spec"
	"github.com/banger-vm/banger/test/support/tinyimage"
)

const testKernel = digest.Digest("sha256:1111111111111111111111111111111111111111111111111111111111111111")

// options make a machine of a small image. Its disk is read-only unless the
// test wants more, so that no tool is needed.
func options(t testing.TB, name string) Options {
	t.Helper()
	path := tinyimage.Disk(t, []tinyimage.File{tinyimage.Entry("bin/true", tinyimage.Program(tinyimage.AMD64), 0o755, tar.TypeReg)})
	return imageOptions(path, name)
}

func imageOptions(path, name string) Options {
	img := &store.Image{ID: "sha256:2222222222222222222222222222222222222222222222222222222222222222"}
	img.Config.Cmd = []string{"/bin/true"}
	return Options{
		Config: spec.Config{Name: name, ReadOnly: true}, Image: img, ImageName: "tiny", DiskPath: path, Kernel: testKernel,
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

// empty asserts that a store has nothing but its lock.
func (s *Store) empty(t testing.TB) {
	t.Helper()
	for _, dir := range []string{s.root.Machines(), s.root.Runtime()} {
		if got := slices.DeleteFunc(names(t, dir), func(n string) bool { return n == ".lock" }); len(got) > 0 {
			t.Errorf("%s holds %q", dir, got)
		}
	}
}

func names(t testing.TB, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// noted is what both copies of a machine's ledger list.
func (s *Store) noted(t testing.TB, id string) []ledger.Entry {
	t.Helper()
	rec, err := record.Read(s.root.DataDir(id))
	if err != nil {
		t.Fatal(err)
	}
	file, damaged, err := ledger.Read(s.root.DataDir(id), id, nil)
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

func TestR3CreateAndRemove(t *testing.T) {
	s := openStore(t)
	o := options(t, "box")
	o.Labels = map[string]string{"a": "b"}
	rec := s.mustCreate(t, o)
	got, err := s.Find("box")
	if err != nil || got.State != record.StateCreated || got.Kernel != testKernel || got.Image != o.Image.ID ||
		got.Config.Labels["a"] != "b" || got.Plan.Main == nil || got.ID != rec.ID {
		t.Fatalf("record %+v, %v", got, err)
	}
	disk := filepath.Join(s.root.DataDir(rec.ID), got.Disk.File)
	info, err := os.Stat(disk)
	if err != nil || got.Disk.Size != info.Size() {
		t.Errorf("disk %+v: %v", got.Disk, err)
	}
	var disks []string
	for _, e := range s.noted(t, rec.ID) {
		if e.Kind != ledger.Disk || e.Owner.ID() != rec.ID {
			t.Errorf("entry %+v, want disks of the machine", e)
		}
		disks = append(disks, e.Path)
	}
	if !slices.Equal(disks, []string{disk}) {
		t.Errorf("noted %q, want %q", disks, disk)
	}
	if s.root.IsLocked(rec.ID) {
		t.Error("the machine is still held")
	}
	if err := s.Remove(t.Context(), rec.ID); err != nil {
		t.Fatal(err)
	}
	s.empty(t)
	for _, id := range []string{rec.ID, "../machines", ""} {
		if err := s.Remove(t.Context(), id); !errors.Is(err, record.ErrNotFound) {
			t.Errorf("remove %q: %v, want record.ErrNotFound", id, err)
		}
	}
	if _, err := os.Stat(o.DiskPath); err != nil {
		t.Errorf("the image's disk is gone: %v", err)
	}
}

func TestCreateFirstStaysHalfMade(t *testing.T) {
	s := openStore(t)
	o := options(t, "box")
	o.first = true
	if rec := s.mustCreate(t, o); rec.State != record.StateCreating {
		t.Errorf("state %s", rec.State)
	}
	r := s.reconcileAll(t)
	if len(r.Machines) != 1 || !r.Machines[0].Fixable {
		t.Errorf("findings %+v", r.Machines)
	}
	s.empty(t)
}

// TestCreatedToBeRemovedStays: what was made with --rm and not started has not ended.
func TestCreatedToBeRemovedStays(t *testing.T) {
	s := openStore(t)
	o := options(t, "box")
	o.Remove = true
	rec := s.mustCreate(t, o)
	if r := s.reconcileAll(t); len(r.Machines) > 0 {
		t.Errorf("findings %+v", r.Machines)
	}
	if got, err := s.Find(rec.ID); err != nil || got.State != record.StateCreated {
		t.Errorf("record %+v, %v", got, err)
	}
}

func TestFailedCreateLeavesNothing(t *testing.T) {
	good := options(t, "box")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	var input *spec.InputError
	for _, row := range []struct {
		name   string
		ctx    context.Context //nolint:containedctx // of the row
		change func(s *Store, o *Options)
		is     func(error) bool
	}{
		{"no such image", t.Context(), func(_ *Store, o *Options) { o.DiskPath += "x" }, isErr(fs.ErrNotExist)},
		{"a disk too small", t.Context(), func(_ *Store, o *Options) { o.ReadOnly, o.DiskSize = false, 512 }, asErr(&input)},
		{"a command that is not there", t.Context(), func(_ *Store, o *Options) { o.Args = []string{"/no"} }, isErr(bootplan.ErrNotBootable)},
		{"a bad name", t.Context(), func(_ *Store, o *Options) { o.Name = "/" }, asErr(&input)},
		{"too many", t.Context(), func(s *Store, _ *Options) { s.Limits.Machines = -1 }, isErr(record.ErrTooMany)},
		{"no space", t.Context(), func(s *Store, _ *Options) { s.Limits.DiskReserve = math.MaxInt64 }, isErr(syscall.ENOSPC)},
		{"an end of its context", ended, func(*Store, *Options) {}, isErr(context.Canceled)},
	} {
		t.Run(row.name, func(t *testing.T) {
			s, o := openStore(t), good
			row.change(s, &o)
			rec, _, err := s.Create(row.ctx, o)
			if rec != nil || !row.is(err) {
				t.Fatalf("Create = %v, %v", rec, err)
			}
			s.empty(t)
		})
	}
}

func isErr(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

func asErr(target any) func(error) bool {
	return func(err error) bool { return errors.As(err, target) }
}

func TestCreateMakesNamesUp(t *testing.T) {
	s := openStore(t)
	o := options(t, "")
	seen := map[string]bool{}
	for range 20 {
		rec := s.mustCreate(t, o)
		name := rec.Config.Name
		if spec.CheckName(name) != nil || !strings.Contains(name, "-") || seen[name] || rec.Config.Hostname != name {
			t.Errorf("name %q, hostname %q", name, rec.Config.Hostname)
		}
		seen[name] = true
		if !slices.Contains(rec.Plan.Main.Env, "HOSTNAME="+name) {
			t.Errorf("environment %q", rec.Plan.Main.Env)
		}
	}
}

func TestCreateAtOnce(t *testing.T) {
	s := openStore(t)
	o := options(t, "box")
	var all sync.WaitGroup
	made := make(chan string, 8)
	for range cap(made) {
		all.Go(func() {
			rec, _, err := s.Create(t.Context(), o)
			if err == nil {
				made <- rec.ID
			} else if !errors.Is(err, record.ErrNameTaken) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(made) != 1 {
		t.Errorf("%d machines have one name", len(made))
	}
}

// TestR4ManyAtOnce has commands on different machines beside each other, and
// beside who looks at all of them: none may take another for a machine that
// runs, and nothing is left.
func TestR4ManyAtOnce(t *testing.T) {
	s := openStore(t)
	o := options(t, "")
	const clients, rounds = 6, 5
	var makers, lookers sync.WaitGroup
	done := make(chan struct{})
	look := func(do func() error) {
		lookers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := do(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	look(func() error { _, _, err := s.Machines(); return err })
	look(func() error { _, err := s.Reconcile(t.Context()); return err })
	look(func() error { return exec.CommandContext(t.Context(), "true").Run() }) // has copies of descriptors
	for n := range clients {
		makers.Go(func() {
			for round := range rounds {
				rec, _, err := s.Create(t.Context(), o)
				if err == nil {
					err = s.Rename(t.Context(), rec.ID, fmt.Sprint("box", n, "-", round))
				}
				if err == nil {
					err = s.Remove(t.Context(), rec.ID)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	makers.Wait()
	close(done)
	lookers.Wait()
	s.empty(t)
}

func TestLimitOfMachines(t *testing.T) {
	s := openStore(t)
	s.Limits.Machines = 2
	o := options(t, "")
	s.mustCreate(t, o)
	last := s.mustCreate(t, o)
	if _, _, err := s.Create(t.Context(), o); !errors.Is(err, record.ErrTooMany) {
		t.Errorf("a third of two: %v", err)
	}
	if err := s.Remove(t.Context(), last.ID); err != nil {
		t.Fatal(err)
	}
	s.mustCreate(t, o)
}

func TestOvercommit(t *testing.T) {
	total, available, err := hostMemory()
	if err != nil || available > total || available < 1<<20 {
		t.Fatalf("host has %d of %d: %v", available, total, err)
	}
	running := []*record.Record{{State: record.StateRunning, Config: spec.Config{Memory: total}}, {State: record.StateExited, Config: spec.Config{Memory: total}}}
	for _, row := range []struct {
		name    string
		records []*record.Record
		memory  int64
		want    string
	}{
		{"a small one alone", nil, 1 << 20, ""},
		{"a small one beside one that has ended", running[1:], 1 << 20, ""},
		{"a small one beside a huge one", running, 1 << 20, "with 1 running machines"},
		{"more than is available", nil, total - 1<<20, "are available"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := overcommit(row.records, row.memory)
			if err != nil || (got == "") != (row.want == "") || !strings.Contains(got, row.want) {
				t.Errorf("warning %q, %v; want %q", got, err, row.want)
			}
		})
	}
	s := openStore(t)
	o := options(t, "box")
	o.Memory = 1 << 50
	if _, warnings, err := s.Create(t.Context(), o); err != nil || len(warnings) != 1 {
		t.Errorf("warnings %q, %v", warnings, err)
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
		{"taken", rec.ID, "other", isErr(record.ErrNameTaken)},
		{"no name", rec.ID, "a/b", asErr(&input)},
		{"an ID", rec.ID, "0123456789ab", asErr(&input)},
		{"nobody", "0123456789ab", "new", isErr(record.ErrNotFound)},
		{"its own", rec.ID, "box", isErr(nil)},
		{"a new one", rec.ID, "new", isErr(nil)},
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
	s.noted(t, rec.ID)
}

func TestPrune(t *testing.T) {
	s := openStore(t)
	o := options(t, "")
	var recs []*record.Record
	for range 3 {
		recs = append(recs, s.mustCreate(t, o))
	}
	held, err := s.root.Lock(recs[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	const size = 64 << 10
	if err := os.WriteFile(filepath.Join(s.root.DataDir(recs[2].ID), "console.log"), make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	ids, freed, err := s.Prune(t.Context(), func(r *record.Record) bool { return r.ID == recs[1].ID })
	if err != nil || !slices.Equal(ids, []string{recs[2].ID}) || freed < size || freed > 2*size {
		t.Errorf("Prune = %q, %d, %v", ids, freed, err)
	}
	for _, rec := range recs[:2] {
		if _, err := s.Find(rec.ID); err != nil {
			t.Error(err)
		}
	}
}

// BenchmarkCreateRemove is the budget of 50 ms for each of the two.
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

// fill makes n machines that have ended, as they are on disk.
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

func BenchmarkMachines(b *testing.B) {
	s := openStore(b)
	const count = 1000
	s.fill(b, count)
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
