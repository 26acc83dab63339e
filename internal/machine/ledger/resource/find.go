package resource

import (
	"context"
	"errors"
	"fmt"

	"github.com/banger-vm/banger/internal/machine/ledger"
)

// A Scope selects the machines whose resources Find returns.
type Scope struct {
	Data string // the data folder of the machines
	ID   string // the ID of one machine, or "" for all
}

// Find searches the host for the resources of the scope's machines, by names and
// marks and without a ledger. It returns entries as the machines' ledgers would
// have them, in the order in which they can be removed. It leaves out this
// process, and files: they are removed with the machine's folders. The caller
// decides whether a machine still needs a resource.
//
// Find continues after a failure and returns the entries that it found together
// with all errors.
func Find(ctx context.Context, scope Scope) ([]ledger.Entry, error) {
	tag, err := ledger.RootTag(scope.Data)
	if err != nil {
		return nil, fmt.Errorf("find resources: %w", err)
	}
	boot, err := BootID()
	if err != nil {
		return nil, fmt.Errorf("find resources: %w", err)
	}
	want := func(o ledger.Owner) bool { return o.Tag() == tag && (scope.ID == "" || o.ID() == scope.ID) }
	var out []ledger.Entry
	var errs []error
	add := func(found []ledger.Entry, err error) {
		for _, e := range found {
			e.Boot = boot
			out = append(out, e)
		}
		errs = append(errs, err)
	}
	add(findProcesses(func(o ledger.Owner, _ string) bool { return want(o) }))
	for _, find := range []func(func(ledger.Owner) bool) ([]ledger.Entry, error){
		findTaps, findTables, findDM, findLoops,
	} {
		if ctx.Err() != nil {
			return out, errors.Join(append(errs, ctx.Err())...)
		}
		add(find(want))
	}
	ledger.Sort(out)
	return out, errors.Join(errs...)
}

// RemoveAll removes the resources of entries in their order and continues after
// a failure. As long as a round removes at least one of them, RemoveAll tries the
// failed ones again: the order within a kind is a guess, and a device is busy
// while another device uses it. It returns the failures of the last round.
func RemoveAll(ctx context.Context, entries []ledger.Entry) error {
	return removeRounds(entries, func(e ledger.Entry) error { return Remove(ctx, e) })
}

// removeRounds implements RemoveAll with any remove.
func removeRounds(entries []ledger.Entry, remove func(ledger.Entry) error) error {
	for {
		var failed []ledger.Entry
		var errs []error
		for _, e := range entries {
			if err := remove(e); err != nil {
				failed = append(failed, e)
				errs = append(errs, fmt.Errorf("remove %s: %w", &e, err))
			}
		}
		if len(failed) == 0 || len(failed) == len(entries) {
			return errors.Join(errs...)
		}
		entries = failed
	}
}
