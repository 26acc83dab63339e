package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/banger-vm/banger/internal/machine/ledger"
	"github.com/banger-vm/banger/internal/machine/ledger/resource"
)

// A Report says how the host and what is recorded of machines agree.
type Report struct {
	Checks    []Check        `json:"checks,omitempty"`    // of the host
	Machines  []Finding      `json:"machines,omitempty"`  // what is not in order
	Leftovers []ledger.Entry `json:"leftovers,omitempty"` // what no machine needs
	Adopted   []string       `json:"adopted,omitempty"`   // IDs of machines that run
	Restart   []string       `json:"restart,omitempty"`   // IDs of machines whose policy wants them to run
}

// Wrong reports whether there is something to be done: a remark is not.
func (r *Report) Wrong() bool {
	return len(r.Leftovers) > 0 ||
		slices.ContainsFunc(r.Checks, func(c Check) bool { return c.Level == LevelError }) ||
		slices.ContainsFunc(r.Machines, func(f Finding) bool { return f.Fixable || f.Level == LevelError })
}

// A Level says how bad a finding is.
type Level string

// The levels.
const (
	LevelOK      Level = "ok"
	LevelWarning Level = "warning"
	LevelError   Level = "error"
)

// A Finding is something that is to be said of a machine.
type Finding struct {
	ID      string `json:"id"`
	Name    string `json:"name,omitempty"` // where its record can be read
	Level   Level  `json:"level"`
	Detail  string `json:"detail"`
	Fix     string `json:"fix,omitempty"` // what is done about it, or can be
	Fixable bool   `json:"fixable"`       // by Reconcile
}

// Reconcile brings what is recorded of the machines in line with the host,
// after whatever was killed: machines that run are left alone, dead ones become
// StateExited, half-made and half-removed ones go, and so do the folders and
// files of writers that were killed. A damaged record is set aside, and the
// machine keeps its disk. A machine that another process holds is skipped. It
// goes on after a failure; the report has what was done.
func (s *Store) Reconcile(ctx context.Context) (Report, error) {
	var r Report
	ids, err := s.ids()
	errs := []error{err}
	for _, id := range ids {
		if ctx.Err() != nil {
			return r, errors.Join(append(errs, ctx.Err())...)
		}
		errs = append(errs, s.reconcile(ctx, id, &r))
	}
	return r, errors.Join(append(errs, s.sweepStrays(&r))...)
}

func (s *Store) reconcile(ctx context.Context, id string, r *Report) error {
	return s.reconcileBy(ctx, s.tryClaim, id, r)
}

// reconcileBy is reconcile of a machine that claim takes.
func (s *Store) reconcileBy(ctx context.Context, claim func(context.Context, string) (*folder, error), id string, r *Report) error {
	dir, err := claim(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound): // removed meanwhile
		return nil
	case errors.Is(err, ErrRunning):
		return s.adopt(id, r)
	case err != nil:
		return err
	}
	l, err := s.look(id)
	if err != nil {
		dir.unlock()
		return err
	}
	told, err := s.settle(ctx, dir, l)
	if f := l.finding(told); f != nil {
		r.Machines = append(r.Machines, *f)
	}
	if err != nil {
		return fmt.Errorf("settle machine %s: %w", id, err)
	}
	if l.wanted() {
		r.Restart = append(r.Restart, id)
	}
	return nil
}

// Settle is Reconcile for one machine, of which nobody else may take care: it
// outlasts those who lock the machine to look at it. That it runs, or is not
// there, is no error. restart says that the machine's policy wants it to run.
func (s *Store) Settle(ctx context.Context, id string) (restart bool, err error) {
	var r Report
	err = s.reconcileBy(ctx, s.claim, id, &r)
	return len(r.Restart) > 0, err
}

// adopt looks whether a machine that is held is held by its supervisor.
func (s *Store) adopt(id string, r *Report) error {
	dir := s.dataDir(id)
	rec, err := readRecord(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(filepath.Join(dir, ledger.FileName)); err != nil {
			return nil //nolint:nilerr // it is being made: its record comes first
		}
	}
	if err != nil {
		r.Machines = append(r.Machines, Finding{
			ID: id, Level: LevelError, Detail: "it is in use, and its record cannot be read: " + err.Error(),
			Fix: "its supervisor writes the record anew when it ends: end the process that holds " + dir,
		})
		return nil //nolint:nilerr // it is told of
	}
	alive, err := supervised(dir, rec)
	if err != nil {
		return err
	}
	if rec.State != StateRunning && !alive {
		return nil // another command works on it
	}
	r.Adopted = append(r.Adopted, id)
	if !alive {
		r.Machines = append(r.Machines, Finding{
			ID: id, Name: rec.Config.Name, Level: LevelWarning, Detail: "it is in use, and not by its supervisor",
			Fix: "end the process that holds " + dir,
		})
	}
	return nil
}

// supervised reports whether the process that the ledger has for the
// machine's supervisor is alive.
func supervised(dir string, rec *Record) (bool, error) {
	entries, _, err := ledger.Read(dir, rec.ID, rec.Runtime)
	if errors.Is(err, ledger.ErrNoLedger) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	i := slices.IndexFunc(entries, func(e ledger.Entry) bool { return e.Kind == ledger.Process && e.Name == supervisorPart })
	if i < 0 {
		return false, nil
	}
	return resource.Alive(entries[i])
}

// settle does what l says is to become of the machine, and lets it go. told
// is what is to be said besides.
func (s *Store) settle(ctx context.Context, dir *folder, l *look) (told []error, err error) {
	switch l.fate {
	case fateLeave:
		dir.unlock()
		return nil, nil
	case fateRemove:
		return nil, s.erase(ctx, dir, l.section)
	case fateSetAside, fateKeep:
		return s.setAside(ctx, dir, l)
	case fateEnd:
		l.rec.lose(l.ended)
		l.rec.Finished = time.Now().UTC()
	case fateRest, fateTidy:
	}
	told, err = s.tidy(ctx, dir, l)
	return told, errors.Join(err, sweepTemporaries(dir.data), dir.release())
}

// tidy gives back what a machine that does not run has no use for, and makes
// its ledger whole.
func (s *Store) tidy(ctx context.Context, dir *folder, l *look) (told []error, err error) {
	record := dir.ledgerRecord(l.rec)
	led, told, err := ledger.Open(dir.data, l.id, record)
	if errors.Is(err, ledger.ErrNoLedger) {
		if err := s.removeMarked(ctx, l.id); err != nil {
			return told, err
		}
		_, err = ledger.New(dir.data, l.id, record)
		return told, err
	}
	if err != nil || l.fate == fateRest {
		return told, err
	}
	if err := led.Teardown(ctx, resource.Remove, ledger.Disk, ledger.Folder); err != nil {
		return told, err
	}
	return told, led.Clear() // which writes the record with its state
}

// setAside keeps the disk of a machine without an intact record, and gives
// the rest back.
func (s *Store) setAside(ctx context.Context, dir *folder, l *look) (told []error, err error) {
	led, told, err := ledger.Open(dir.data, l.id, ledger.Record{Section: l.section})
	switch {
	case errors.Is(err, ledger.ErrNoLedger):
		err = s.removeMarked(ctx, l.id)
	case err == nil:
		err = led.Teardown(ctx, resource.Remove, ledger.Disk, ledger.Folder)
	}
	if err == nil && l.fate == fateSetAside {
		var to string
		if to, err = ledger.SetAside(filepath.Join(dir.data, recordName)); err == nil {
			told = append(told, fmt.Errorf("record kept as %s", to))
		}
	}
	return told, errors.Join(err, sweepTemporaries(dir.data), dir.release())
}

// isTemporary reports whether name is what a killed writer left.
func isTemporary(name string) bool {
	first, _, ok := strings.Cut(name, ".tmp-")
	return ok && (first == "."+recordName || first == "."+ledger.FileName)
}

// sweepTemporaries removes what killed writers of the record left; who holds
// the machine is the only writer.
func sweepTemporaries(dir string) error {
	entries, err := os.ReadDir(dir)
	errs := []error{err}
	for _, e := range entries {
		if isTemporary(e.Name()) {
			errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// strays are the runtime folders of machines that are gone, and what removals
// that were cut off left, by their paths.
func (s *Store) strays() (found map[string]Finding, err error) {
	found = map[string]Finding{}
	add := func(id, path string) {
		found[path] = Finding{ID: id, Level: LevelWarning, Detail: "it is gone, and " + path + " is not", Fix: "remove " + path, Fixable: true}
	}
	inRuntime, err := os.ReadDir(s.runtime)
	errs := []error{err}
	for _, e := range inRuntime {
		if !idForm.MatchString(e.Name()) {
			continue // the daemon's
		}
		if _, err := os.Lstat(s.dataDir(e.Name())); errors.Is(err, fs.ErrNotExist) {
			add(e.Name(), s.runtimeDir(e.Name()))
		}
	}
	inData, err := os.ReadDir(s.data)
	for _, e := range inData {
		if id, ok := strings.CutPrefix(e.Name(), gonePrefix); ok && idForm.MatchString(id) {
			add(id, filepath.Join(s.data, e.Name()))
		}
	}
	return found, errors.Join(append(errs, err)...)
}

func (s *Store) sweepStrays(r *Report) error {
	found, err := s.strays()
	errs := []error{err}
	for _, path := range slices.Sorted(maps.Keys(found)) {
		if err := os.RemoveAll(path); err != nil {
			errs = append(errs, err)
			continue
		}
		r.Machines = append(r.Machines, found[path])
	}
	return errors.Join(errs...)
}
