package machine

import (
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

	"github.com/banger-vm/banger/internal/machine/bootplan"
	"github.com/banger-vm/banger/internal/machine/ledger"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/spec"
	"github.com/banger-vm/banger/test/support/testmachine"
)

func TestR3CreateAndRemove(t *testing.T) {
	s := openStore(t)
	o := options(t, "box")
	o.Labels = map[string]string{"a": "b"}
	rec := s.mustCreate(t, o)
	got, err := s.Find("box")
	if err != nil || got.State != record.StateCreated || got.Kernel != testmachine.Kernel || got.Image != o.Image.ID ||
		got.Config.Labels["a"] != "b" || got.Plan.Main == nil || got.ID != rec.ID {
		t.Fatalf("record %+v, %v", got, err)
	}
	disk := filepath.Join(s.root.DataDir(rec.ID), got.Disk.File)
	info, err := os.Stat(disk)
	if err != nil || got.Disk.Size != info.Size() {
		t.Errorf("disk %+v: %v", got.Disk, err)
	}
	var disks []string
	for _, e := range testmachine.LedgerEntries(t, s.root, rec.ID) {
		if e.Kind != ledger.Disk || e.Owner.ID() != rec.ID {
			t.Errorf("entry %+v, want disks of the machine", e)
		}
		disks = append(disks, e.Path)
	}
	if !slices.Equal(disks, []string{disk}) {
		t.Errorf("the ledger lists %q, want %q", disks, disk)
	}
	if s.root.IsLocked(rec.ID) {
		t.Error("the machine is still locked")
	}
	if err := s.Remove(t.Context(), rec.ID); err != nil {
		t.Fatal(err)
	}
	testmachine.CheckEmpty(t, s.root)
	for _, id := range []string{rec.ID, "../machines", ""} {
		if err := s.Remove(t.Context(), id); !errors.Is(err, record.ErrNotFound) {
			t.Errorf("remove %q: %v, want record.ErrNotFound", id, err)
		}
	}
	if _, err := os.Stat(o.DiskPath); err != nil {
		t.Errorf("the image's disk is gone: %v", err)
	}
}

// TestCreateFirstStaysHalfMade checks that Reconcile removes a machine whose first
// start has not succeeded.
func TestCreateFirstStaysHalfMade(t *testing.T) {
	s := openStore(t)
	o := options(t, "box")
	o.first = true
	if rec := s.mustCreate(t, o); rec.State != record.StateCreating {
		t.Errorf("state %s", rec.State)
	}
	r := s.mustReconcile(t)
	if len(r.Machines) != 1 || !r.Machines[0].Fixable {
		t.Errorf("findings %+v", r.Machines)
	}
	testmachine.CheckEmpty(t, s.root)
}

// TestCreatedToBeRemovedStays checks that Reconcile keeps a machine that is to be
// removed at its end and has not been started.
func TestCreatedToBeRemovedStays(t *testing.T) {
	s := openStore(t)
	o := options(t, "box")
	o.Remove = true
	rec := s.mustCreate(t, o)
	if r := s.mustReconcile(t); len(r.Machines) > 0 {
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
		ctx    context.Context //nolint:containedctx // a row of the table is one call
		change func(s *Store, o *Options)
		is     func(error) bool
	}{
		{"a missing image", t.Context(), func(_ *Store, o *Options) { o.DiskPath += "x" }, isErr(fs.ErrNotExist)},
		{"a disk too small", t.Context(), func(_ *Store, o *Options) { o.ReadOnly, o.DiskSize = false, 512 }, asErr(&input)},
		{"a command that the image does not have", t.Context(), func(_ *Store, o *Options) { o.Args = []string{"/no"} }, isErr(bootplan.ErrNotBootable)},
		{"a bad name", t.Context(), func(_ *Store, o *Options) { o.Name = "/" }, asErr(&input)},
		{"too many machines", t.Context(), func(s *Store, _ *Options) { s.Limits.Machines = -1 }, isErr(record.ErrTooMany)},
		{"no space", t.Context(), func(s *Store, _ *Options) { s.Limits.DiskReserve = math.MaxInt64 }, isErr(syscall.ENOSPC)},
		{"a context that has ended", ended, func(*Store, *Options) {}, isErr(context.Canceled)},
	} {
		t.Run(row.name, func(t *testing.T) {
			s, o := openStore(t), good
			row.change(s, &o)
			rec, _, err := s.Create(row.ctx, o)
			if rec != nil || !row.is(err) {
				t.Fatalf("Create = %v, %v", rec, err)
			}
			testmachine.CheckEmpty(t, s.root)
		})
	}
}

// TestCreateMakesNamesUp checks the name, the hostname and the environment of
// machines for which the user gives no name.
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

// TestCreateAtOnce makes machines with one name at the same time.
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

// TestR4ManyAtOnce changes several machines while other goroutines list and
// reconcile all of them. No operation may mistake the short lock of another one for
// a running machine, and no file is left.
func TestR4ManyAtOnce(t *testing.T) {
	s := openStore(t)
	o := options(t, "")
	const clients, rounds = 6, 5
	var makers, readers sync.WaitGroup
	done := make(chan struct{})
	repeat := func(do func() error) {
		readers.Go(func() {
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
	repeat(func() error { _, _, err := s.Machines(); return err })
	repeat(func() error { _, err := s.Reconcile(t.Context()); return err })
	repeat(func() error { return exec.CommandContext(t.Context(), "true").Run() }) // a new process has copies of the locks until its exec
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
	readers.Wait()
	testmachine.CheckEmpty(t, s.root)
}
