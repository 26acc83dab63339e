package repair

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/machine/ledger"
	"github.com/banger-vm/banger/internal/machine/ledger/resource"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/spec"
)

// Examine reports how the records of machines differ from the host, and changes
// nothing.
func Examine(ctx context.Context, root *record.Root) (Report, error) {
	var r Report
	ids, err := root.IDs()
	if err != nil {
		return r, err
	}
	var errs []error
	for _, id := range ids {
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		errs = append(errs, examine(root, id, &r))
	}
	found, err := strays(root)
	errs = append(errs, err)
	for _, path := range slices.Sorted(maps.Keys(found)) {
		r.Machines = append(r.Machines, found[path])
	}
	r.Leftovers, err = leftovers(ctx, root)
	return r, errors.Join(append(errs, err)...)
}

// examine enters the faults of one machine in the report.
func examine(root *record.Root, id string, r *Report) error {
	if root.IsLocked(id) {
		return adopt(root, id, r)
	}
	in, err := inspect(root, id)
	if err != nil {
		return err
	}
	if f := in.finding(nil); f != nil {
		r.Machines = append(r.Machines, *f)
	}
	if in.wantsStart() {
		r.Restart = append(r.Restart, id)
	}
	files, err := record.SetAsideFiles(in.dir)
	if len(files) > 0 {
		f := Finding{ID: id, Level: LevelWarning, Detail: "damaged files were set aside: " + strings.Join(files, ", ")}
		f.Fix = "examine and delete them"
		if in.rec != nil {
			f.Name = in.rec.Config.Name
		}
		r.Machines = append(r.Machines, f)
	}
	return err
}

// leftovers returns the resources of the host that bear the mark of a machine
// and that the machine does not need: it is gone, or it does not run and its
// ledger does not list them. Reconcile gives back those that a ledger lists.
func leftovers(ctx context.Context, root *record.Root) ([]ledger.Entry, error) {
	found, err := resource.Find(ctx, resource.Scope{Data: root.Path()})
	errs := []error{err}
	var out []ledger.Entry
	for _, e := range found {
		needed, err := needs(root, e)
		if !needed && err == nil {
			out = append(out, e)
		}
		errs = append(errs, err)
	}
	return out, errors.Join(errs...)
}

// needs reports whether e belongs to a machine that runs or whose ledger lists
// it. It returns true if that cannot be known.
func needs(root *record.Root, e ledger.Entry) (bool, error) {
	id := e.Owner.ID()
	if _, err := os.Lstat(root.DataDir(id)); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return true, fmt.Errorf("inspect machine %s: %w", id, err)
	}
	if root.IsLocked(id) {
		return true, nil
	}
	in, err := inspect(root, id)
	if err != nil || in.action == leaveToNewer || in.noLedger {
		return true, err
	}
	for _, o := range in.entries {
		if o.Kind == e.Kind && o.Name == e.Name {
			return true, nil
		}
	}
	return false, nil
}

// Fix repairs the faults in a report of Examine. It reconciles the machines, and
// removes the leftovers that are in the report if no machine needs them now. It
// goes on after a failure. done lists the repairs.
func Fix(ctx context.Context, root *record.Root, r Report) (done []string, err error) {
	repaired, err := Reconcile(ctx, root)
	errs := []error{err}
	for _, f := range repaired.Machines {
		if f.Fixable {
			done = append(done, "machine "+spec.OrDefault(f.Name, f.ID)+": "+f.Fix)
		}
	}
	now, err := leftovers(ctx, root)
	errs = append(errs, err)
	for _, e := range now {
		if !lists(r.Leftovers, e) {
			continue
		}
		if err := removeLeftover(ctx, root, e); err != nil {
			errs = append(errs, fmt.Errorf("remove %s: %w", &e, err))
			continue
		}
		done = append(done, fmt.Sprintf("machine %s: remove %s", e.Owner.ID(), &e))
	}
	return done, errors.Join(errs...)
}

// lists reports whether entries has e.
func lists(entries []ledger.Entry, e ledger.Entry) bool {
	for _, o := range entries {
		if o.Kind == e.Kind && o.Name == e.Name && o.Owner == e.Owner && o.PID == e.PID {
			return true
		}
	}
	return false
}

// removeLeftover removes a resource. It locks the machine, if that exists, so
// that no other process starts it in the meantime.
func removeLeftover(ctx context.Context, root *record.Root, e ledger.Entry) error {
	dir, err := root.Claim(ctx, e.Owner.ID())
	if err == nil {
		defer dir.Unlock()
	} else if !errors.Is(err, record.ErrNotFound) {
		return err
	}
	return resource.Remove(ctx, e)
}
