// Package repair brings the records of machines in line with the host after a
// crash. It also reports how the two differ, without changing anything. It
// repairs a machine only while no other process has locked it, so it leaves
// running machines alone. It removes only resources that are in a machine's
// ledger or bear its mark.
package repair

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
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/spec"
)

// Reconcile repairs all machines: it leaves running machines alone, records
// dead ones as exited, and removes half-made and half-removed ones and the
// files of killed writers. It sets a damaged record aside and keeps the
// machine's disk. It skips machines that another process has locked. It goes on
// after a failure. The report lists the repairs.
func Reconcile(ctx context.Context, root *record.Root) (Report, error) {
	var r Report
	ids, err := root.IDs()
	errs := []error{err}
	for _, id := range ids {
		if ctx.Err() != nil {
			return r, errors.Join(append(errs, ctx.Err())...)
		}
		errs = append(errs, reconcile(ctx, root, root.TryClaim, id, &r))
	}
	return r, errors.Join(append(errs, removeStrays(root, &r))...)
}

// reconcile repairs one machine, which it locks by claim.
func reconcile(ctx context.Context, root *record.Root, claim func(context.Context, string) (*record.Folder, error), id string, r *Report) error {
	dir, err := claim(ctx, id)
	switch {
	case errors.Is(err, record.ErrNotFound): // removed in the meantime
		return nil
	case errors.Is(err, record.ErrRunning):
		return adopt(root, id, r)
	case err != nil:
		return err
	}
	in, err := inspect(root, id)
	if err != nil {
		dir.Unlock()
		return err
	}
	remarks, err := in.repair(ctx, root, dir)
	if f := in.finding(remarks); f != nil {
		r.Machines = append(r.Machines, *f)
	}
	if err != nil {
		return fmt.Errorf("repair machine %s: %w", id, err)
	}
	if in.wantsStart() {
		r.Restart = append(r.Restart, id)
	}
	return nil
}

// Machine repairs one machine. It waits for processes that lock the machine for
// a moment. It returns no error if the machine runs or does not exist. restart
// reports whether the machine's policy asks the daemon to start it.
func Machine(ctx context.Context, root *record.Root, id string) (restart bool, err error) {
	var r Report
	err = reconcile(ctx, root, root.Claim, id, &r)
	return len(r.Restart) > 0, err
}

// adopt enters a locked machine in the report. It warns if the process that
// holds the lock is not the machine's supervisor.
func adopt(root *record.Root, id string, r *Report) error {
	dir := root.DataDir(id)
	rec, err := record.Read(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !hasLedger(dir):
		return nil // another process is making the machine: it writes the record, then the ledger
	case err != nil:
		r.Machines = append(r.Machines, unreadable(id, dir, err))
		return nil
	}
	alive, err := supervised(dir, rec)
	if err != nil {
		return err
	}
	if rec.State != record.StateRunning && !alive {
		return nil // another command works on the machine
	}
	r.Adopted = append(r.Adopted, id)
	if !alive {
		r.Machines = append(r.Machines, Finding{
			ID: id, Name: rec.Config.Name, Level: LevelWarning, Detail: "a process that is not its supervisor has locked it",
			Fix: "end the process that has " + dir + " open",
		})
	}
	return nil
}

// hasLedger reports whether a machine's data folder dir has a ledger.
func hasLedger(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, ledger.FileName))
	return err == nil
}

// unreadable returns the finding about a locked machine whose record cannot be read.
func unreadable(id, dir string, err error) Finding {
	return Finding{
		ID: id, Level: LevelError, Detail: "it is in use, and its record cannot be read: " + err.Error(),
		Fix: "its supervisor writes the record anew when it ends: end the process that has " + dir + " open",
	}
}

// supervised reports whether the supervisor's process in the ledger is alive.
func supervised(dir string, rec *record.Record) (bool, error) {
	e, err := rec.Supervisor(dir)
	if errors.Is(err, ledger.ErrNoLedger) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return resource.Alive(e)
}

// repair takes the action and unlocks the machine. It returns remarks for the
// report.
func (in *inspection) repair(ctx context.Context, root *record.Root, dir *record.Folder) (remarks []error, err error) {
	switch in.action {
	case leaveToNewer:
		dir.Unlock()
		return nil, nil
	case removeMachine:
		return nil, dir.Erase(ctx, in.section)
	case setRecordAside, keepFiles:
		return in.setAside(ctx, root, dir)
	case markEnded:
		in.rec.MarkFailed(in.ended)
		in.rec.Finished = time.Now().UTC()
	case doNothing, cleanUp:
	}
	remarks, err = in.cleanUp(ctx, root, dir)
	return remarks, errors.Join(err, dir.RemoveTemporaries(), dir.Release())
}

// cleanUp gives back the resources that a machine at rest does not need, and
// repairs its ledger.
func (in *inspection) cleanUp(ctx context.Context, root *record.Root, dir *record.Folder) (remarks []error, err error) {
	copies := dir.LedgerRecord(in.rec)
	l, remarks, err := ledger.Open(dir.Data, in.id, copies)
	if errors.Is(err, ledger.ErrNoLedger) {
		if err := root.RemoveMarked(ctx, in.id); err != nil {
			return remarks, err
		}
		_, err = ledger.New(dir.Data, in.id, copies)
		return remarks, err
	}
	if err != nil || in.action == doNothing {
		return remarks, err
	}
	if err := l.Teardown(ctx, resource.Remove, ledger.Disk, ledger.Folder); err != nil {
		return remarks, err
	}
	return remarks, l.Clear() // which publishes the record with its state
}

// setAside keeps the disk of a machine without an intact record, and gives its
// other resources back.
func (in *inspection) setAside(ctx context.Context, root *record.Root, dir *record.Folder) (remarks []error, err error) {
	l, remarks, err := ledger.Open(dir.Data, in.id, ledger.Record{Section: in.section})
	switch {
	case errors.Is(err, ledger.ErrNoLedger):
		err = root.RemoveMarked(ctx, in.id)
	case err == nil:
		err = l.Teardown(ctx, resource.Remove, ledger.Disk, ledger.Folder)
	}
	if err == nil && in.action == setRecordAside {
		var to string
		if to, err = ledger.SetAside(filepath.Join(dir.Data, record.FileName)); err == nil {
			remarks = append(remarks, fmt.Errorf("record kept as %s", to))
		}
	}
	return remarks, errors.Join(err, dir.RemoveTemporaries(), dir.Release())
}

// strays returns the runtime folders of machines that do not exist any more, and
// the folders that interrupted removals have left, by their paths.
func strays(root *record.Root) (found map[string]Finding, err error) {
	found = map[string]Finding{}
	add := func(id, path string) {
		found[path] = Finding{ID: id, Level: LevelWarning, Detail: "it was removed, but its folder " + path + " was left", Fix: "remove " + path, Fixable: true}
	}
	inRuntime, err := os.ReadDir(root.Runtime())
	errs := []error{err}
	for _, e := range inRuntime {
		if !spec.IsID(e.Name()) {
			continue // a file of the daemon
		}
		if _, err := os.Lstat(root.DataDir(e.Name())); errors.Is(err, fs.ErrNotExist) {
			add(e.Name(), root.RuntimeDir(e.Name()))
		}
	}
	inData, err := os.ReadDir(root.Machines())
	for _, e := range inData {
		if id, ok := strings.CutPrefix(e.Name(), record.GonePrefix); ok && spec.IsID(id) {
			add(id, filepath.Join(root.Machines(), e.Name()))
		}
	}
	return found, errors.Join(append(errs, err)...)
}

// removeStrays removes the folders that strays returns.
func removeStrays(root *record.Root, r *Report) error {
	found, err := strays(root)
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
