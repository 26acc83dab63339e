package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/machine/ledger"
	"github.com/banger-vm/banger/internal/machine/ledger/resource"
)

// Options say what a new machine is made of.
type Options struct {
	Config
	Image     *store.Image
	ImageName string        // as the user gave it
	DiskPath  string        // of the image
	Kernel    digest.Digest // that it boots
	Remove    bool          // the machine with its disk, when it ends
	first     bool          // it stays half-made until its first start has succeeded
}

// Create makes a machine that does not run. When it fails, or ctx ends
// meanwhile, nothing of the machine is left. warnings are remarks for the
// user. The errors are ErrNameTaken, ErrTooMany, *InputError, ErrNotBootable,
// syscall.ENOSPC and those of the disk's making.
func (s *Store) Create(ctx context.Context, o Options) (rec *Record, warnings []string, err error) {
	d, err := s.draft(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	d.dir.unlock()
	return d.rec, memoryWarnings(d.others, d.rec), nil
}

// Run is Create and Start of one machine that no other process gets hold of in
// between. It stays StateCreating, and nothing of it is left when it fails or
// this process is killed, until it is ready.
func (s *Store) Run(ctx context.Context, o Options, l Launch) (rec *Record, warnings []string, conn *frames.Conn, err error) {
	o.first, l.First = true, true
	d, err := s.draft(ctx, o)
	if err != nil {
		return nil, nil, nil, err
	}
	conn, err = s.start(ctx, d.dir, l)
	if err != nil {
		return nil, nil, nil, err
	}
	return d.rec, memoryWarnings(d.others, d.rec), conn, nil
}

// draft makes a machine and keeps hold of it.
func (s *Store) draft(ctx context.Context, o Options) (*draft, error) {
	if err := s.Limits.checkSpace(s.data); err != nil {
		return nil, err
	}
	d, err := s.begin(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := s.furnish(ctx, d, &o); err != nil {
		// ctx may be what ended it.
		return nil, errors.Join(err, s.erase(context.WithoutCancel(ctx), d.dir, d.rec.Runtime))
	}
	return d, nil
}

// A draft is a machine that is being made, held by this process.
type draft struct {
	rec    *Record
	dir    *folder
	ledger *ledger.Ledger
	others []*Record // as they are recorded
}

// begin enters a machine of state StateCreating. Where its name was made up
// and another has it, it gets another one.
func (s *Store) begin(ctx context.Context, o Options) (*draft, error) {
	const attempts, short = 10, 2
	given := o.Name != ""
	for n := 1; ; n++ {
		conf := o.Config
		if !given && n > short {
			conf.Name = longName()
		}
		rec, err := newRecord(conf, &o)
		if err != nil {
			return nil, err
		}
		d, err := s.enter(ctx, rec)
		if err == nil || given || n == attempts || !errors.Is(err, ErrNameTaken) {
			return d, err
		}
	}
}

func newRecord(conf Config, o *Options) (*Record, error) {
	id, err := newID()
	if err != nil {
		return nil, fmt.Errorf("make machine: %w", err)
	}
	if err := conf.complete(); err != nil {
		return nil, err
	}
	plan, err := planBoot(o.Image, o.DiskPath, &conf)
	if err != nil {
		return nil, err
	}
	return &Record{
		ID: id, Config: conf, Image: o.Image.ID, ImageName: o.ImageName, Kernel: o.Kernel, Plan: *plan,
		Exec: conf.exec(&o.Image.Config), Remove: o.Remove, Created: time.Now().UTC(), State: StateCreating,
	}, nil
}

// enter makes the data folder of a new machine with its record and an empty
// ledger, and locks it.
func (s *Store) enter(ctx context.Context, rec *Record) (d *draft, err error) {
	err = s.locked(ctx, func() error {
		others, damaged, err := s.list()
		if err != nil {
			return err
		}
		if err := s.Limits.checkCount(len(others) + len(damaged)); err != nil {
			return err
		}
		if slices.ContainsFunc(others, func(o *Record) bool { return o.Config.Name == rec.Config.Name }) {
			return fmt.Errorf("machine %s: %w", rec.Config.Name, ErrNameTaken)
		}
		if err := os.Mkdir(s.dataDir(rec.ID), 0o700); err != nil {
			return fmt.Errorf("make machine folder: %w", err)
		}
		dir, err := s.lock(rec.ID)
		if err != nil {
			return errors.Join(err, os.Remove(s.dataDir(rec.ID)))
		}
		l, err := ledger.New(dir.data, rec.ID, dir.ledgerRecord(rec))
		if err != nil {
			return errors.Join(err, dir.remove())
		}
		d = &draft{rec, dir, l, others}
		return nil
	})
	return d, err
}

// furnish makes what the machine needs before it can start.
func (s *Store) furnish(ctx context.Context, d *draft, o *Options) error {
	rec := d.rec
	owner, err := ledger.NewOwner(rec.ID, s.root)
	if err != nil {
		return err
	}
	mk := resource.Maker{Ledger: d.ledger, Owner: owner}
	disk := diskOptions{Size: rec.Config.DiskSize, ReadOnly: rec.Config.ReadOnly, Driver: rec.Config.DiskDriver}
	if rec.Disk, err = makeDisk(ctx, mk, o.DiskPath, d.dir.data, disk); err != nil {
		return err
	}
	if !o.first {
		rec.State = StateCreated
	}
	return errors.Join(rec.write(d.dir.data), ctx.Err())
}

// ledgerRecord is the ledger's copy in rec. What else of rec has changed is
// written with it.
func (d *folder) ledgerRecord(rec *Record) ledger.Record {
	return ledger.Record{Section: rec.Runtime, Write: func(section json.RawMessage) error {
		rec.Runtime = section
		return rec.write(d.data)
	}}
}

// Remove deletes a machine that does not run, given by its whole ID, with all
// that it holds. Its record may be damaged or missing. It goes on after a
// failure; what could not be given back stays in the machine's ledger for
// another attempt. The errors are ErrNotFound, ErrRunning and ErrNewer.
func (s *Store) Remove(ctx context.Context, id string) error {
	dir, err := s.claim(ctx, id)
	if err != nil {
		return err
	}
	rec, err := readRecord(dir.data)
	if err == nil {
		return s.removeWhole(ctx, dir, rec)
	}
	if isDamaged(err) || errors.Is(err, fs.ErrNotExist) {
		return s.erase(ctx, dir, damagedSection(dir.data))
	}
	dir.unlock()
	return fmt.Errorf("remove machine %s: %w", id, err)
}

// removeWhole marks the machine first, so that a removal that is cut off is
// gone on with.
func (s *Store) removeWhole(ctx context.Context, dir *folder, rec *Record) error {
	rec.State, rec.Remove = StateExited, true
	err := rec.write(dir.data)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		err = nil // what is removed gives the space back
	}
	if err != nil {
		dir.unlock()
		return fmt.Errorf("remove machine %s: %w", rec.ID, err)
	}
	return s.erase(ctx, dir, rec.Runtime)
}

// erase gives back what a machine holds, by its ledger or, where none is
// intact, by the marks, and then removes its folders and lets it go. section
// is the ledger's copy in its record.
func (s *Store) erase(ctx context.Context, dir *folder, section json.RawMessage) error {
	id := filepath.Base(dir.data)
	// The record goes too, so that nothing is written to it.
	entries, _, err := ledger.Read(dir.data, id, section)
	switch {
	case errors.Is(err, ledger.ErrNoLedger):
		err = s.removeMarked(ctx, id)
	case err == nil:
		err = removeEntries(ctx, entries)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("remove machine %s: %w", id, err), dir.release())
	}
	if err := dir.remove(); err != nil {
		return fmt.Errorf("remove machine %s: %w", id, err)
	}
	return nil
}

// removeEntries gives back what a ledger lists, the latest first.
func removeEntries(ctx context.Context, entries []ledger.Entry) error {
	var errs []error
	for _, e := range slices.Backward(entries) {
		if err := resource.Remove(ctx, e); err != nil {
			errs = append(errs, fmt.Errorf("remove %s: %w", &e, err))
		}
	}
	return errors.Join(errs...)
}

// removeMarked gives back what the host has with the marks of a machine.
func (s *Store) removeMarked(ctx context.Context, id string) error {
	found, err := resource.Find(ctx, resource.Scope{Data: s.root, ID: id})
	return errors.Join(err, resource.RemoveAll(ctx, found))
}

// Prune removes the machines that do not run but those that keep is true of,
// and returns their IDs and the bytes that they had to themselves; extents
// that they share with images are counted too. It goes on after a failure.
func (s *Store) Prune(ctx context.Context, keep func(*Record) bool) (ids []string, freed int64, err error) {
	records, _, err := s.Machines()
	if err != nil {
		return nil, 0, err
	}
	var errs []error
	for _, rec := range records {
		if rec.State == StateRunning || rec.State == StateCreating || keep(rec) {
			continue
		}
		size, err := ownBytes(s.dataDir(rec.ID))
		if err == nil {
			err = s.Remove(ctx, rec.ID)
		}
		switch {
		case err == nil:
			ids, freed = append(ids, rec.ID), freed+size
		case errors.Is(err, ErrRunning) || errors.Is(err, ErrNotFound): // since it was listed
		default:
			errs = append(errs, err)
		}
	}
	return ids, freed, errors.Join(errs...)
}

// ownBytes is what the files in a folder take that have no other name.
func ownBytes(dir string) (sum int64, err error) {
	const blockSize = 512 // the unit of st_blocks, stat(2)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, fmt.Errorf("measure machine folder: %w", err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // a temporary that was renamed
		}
		if err != nil {
			return 0, fmt.Errorf("measure machine folder: %w", err)
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink == 1 {
			sum += st.Blocks * blockSize
		}
	}
	return sum, nil
}
