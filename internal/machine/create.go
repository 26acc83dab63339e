package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/machine/bootplan"
	"github.com/banger-vm/banger/internal/machine/control"
	"github.com/banger-vm/banger/internal/machine/disk"
	"github.com/banger-vm/banger/internal/machine/ledger"
	"github.com/banger-vm/banger/internal/machine/ledger/resource"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/spec"
)

// Options describe a new machine.
type Options struct {
	spec.Config
	Image     *store.Image
	ImageName string        // as the user wrote it
	DiskPath  string        // path of the image's disk
	Kernel    digest.Digest // kernel that the machine boots
	Remove    bool          // remove the machine with its disk when it ends
	first     bool          // the machine stays StateCreating until its first start has succeeded
}

// Create makes a machine that does not run. If it fails, or ctx ends, nothing
// of the machine is left. warnings are remarks for the user. The errors are
// record.ErrNameTaken, record.ErrTooMany, *spec.InputError,
// bootplan.ErrNotBootable, syscall.ENOSPC and those of disk.Make.
func (s *Store) Create(ctx context.Context, o Options) (rec *record.Record, warnings []string, err error) {
	d, err := s.provision(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	d.dir.Unlock()
	return d.rec, memoryWarnings(d.others, d.rec), nil
}

// Run makes and starts a machine, which stays locked in between. Until the
// machine is ready its state is StateCreating: if the start fails, or this
// process is killed, nothing of the machine is left.
func (s *Store) Run(ctx context.Context, o Options, l control.Launch) (rec *record.Record, warnings []string, conn *frames.Conn, err error) {
	o.first, l.First = true, true
	d, err := s.provision(ctx, o)
	if err != nil {
		return nil, nil, nil, err
	}
	conn, err = startLocked(ctx, d.dir, l)
	if err != nil {
		return nil, nil, nil, err
	}
	return d.rec, memoryWarnings(d.others, d.rec), conn, nil
}

// provision makes a machine and keeps it locked.
func (s *Store) provision(ctx context.Context, o Options) (*newMachine, error) {
	if err := s.Limits.checkSpace(s.root.Machines()); err != nil {
		return nil, err
	}
	m, err := s.enterNamed(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := m.makeDisk(ctx, &o); err != nil {
		// The end of ctx may be the error, and must not stop the removal.
		return nil, errors.Join(err, m.dir.Erase(context.WithoutCancel(ctx), m.rec.Runtime))
	}
	return m, nil
}

// A newMachine is a machine that this process makes and has locked.
type newMachine struct {
	rec    *record.Record
	dir    *record.Folder
	ledger *ledger.Ledger
	others []*record.Record // all other machines, as recorded
}

// enterNamed enters a new machine in the store. If its name is made up and
// another machine has it, enterNamed makes up another one.
func (s *Store) enterNamed(ctx context.Context, o Options) (*newMachine, error) {
	const attempts, short = 10, 2
	given := o.Name != ""
	for n := 1; ; n++ {
		conf := o.Config
		if !given && n > short {
			conf.Name = spec.LongName()
		}
		rec, err := newRecord(conf, &o)
		if err != nil {
			return nil, err
		}
		d, err := s.enter(ctx, rec)
		if err == nil || given || n == attempts || !errors.Is(err, record.ErrNameTaken) {
			return d, err
		}
	}
}

// newRecord returns the record of a new machine. It validates the configuration.
func newRecord(conf spec.Config, o *Options) (*record.Record, error) {
	id, err := record.NewID()
	if err != nil {
		return nil, fmt.Errorf("make machine: %w", err)
	}
	if err := spec.Validate(&conf, o.Remove); err != nil {
		return nil, err
	}
	conf.SetDefaults()
	plan, err := bootplan.New(o.Image, o.DiskPath, &conf)
	if err != nil {
		return nil, err
	}
	return &record.Record{
		ID: id, Config: conf, Image: o.Image.ID, ImageName: o.ImageName, Kernel: o.Kernel, Plan: *plan,
		Exec: bootplan.Exec(&conf, &o.Image.Config), Remove: o.Remove, Created: time.Now().UTC(), State: record.StateCreating,
	}, nil
}

// enter makes the data folder of a new machine with its record and an empty
// ledger, and locks it.
func (s *Store) enter(ctx context.Context, rec *record.Record) (m *newMachine, err error) {
	err = s.root.Exclusively(ctx, func() error {
		others, damaged, err := s.root.Recorded()
		if err != nil {
			return err
		}
		if err := s.Limits.checkCount(len(others) + len(damaged)); err != nil {
			return err
		}
		if slices.ContainsFunc(others, func(o *record.Record) bool { return o.Config.Name == rec.Config.Name }) {
			return fmt.Errorf("machine %s: %w", rec.Config.Name, record.ErrNameTaken)
		}
		if err := os.Mkdir(s.root.DataDir(rec.ID), 0o700); err != nil {
			return fmt.Errorf("make machine folder: %w", err)
		}
		dir, err := s.root.Lock(rec.ID)
		if err != nil {
			return errors.Join(err, os.Remove(s.root.DataDir(rec.ID)))
		}
		l, err := ledger.New(dir.Data, rec.ID, dir.LedgerRecord(rec))
		if err != nil {
			return errors.Join(err, dir.Delete())
		}
		m = &newMachine{rec, dir, l, others}
		return nil
	})
	return m, err
}

// makeDisk makes the machine's disk and records it.
func (m *newMachine) makeDisk(ctx context.Context, o *Options) error {
	rec := m.rec
	owner, err := m.dir.Owner()
	if err != nil {
		return err
	}
	mk := resource.Maker{Ledger: m.ledger, Owner: owner}
	options := disk.Options{Size: rec.Config.DiskSize, ReadOnly: rec.Config.ReadOnly, Driver: rec.Config.DiskDriver}
	if rec.Disk, err = disk.Make(ctx, mk, o.DiskPath, m.dir.Data, options); err != nil {
		return err
	}
	if !o.first {
		rec.State = record.StateCreated
	}
	return errors.Join(rec.Write(m.dir.Data), ctx.Err())
}
