package resource

import (
	"context"
	"errors"
	"fmt"

	"github.com/banger-vm/banger/internal/machine/ledger"
)

// A Scope says whose resources are looked for.
type Scope struct {
	Data string // the data folder, whose number the marks have
	ID   string // of one machine; "" for all
}

// Find returns what the host has of the scope's machines by names and marks
// alone, this process apart: entries as the machines' ledgers would have them,
// in the order in which they can be removed. What lies in a machine's folder
// (sockets, disks) goes with the folder, and is not listed. Whether a machine
// still needs what is found is for the caller to know.
//
// It goes on after a failure, and returns what it found with all errors.
func Find(ctx context.Context, scope Scope) ([]ledger.Entry, error) {
	tag, err := ledger.RootTag(scope.Data)
	if err != nil {
		return nil, fmt.Errorf("find resources: %w", err)
	}
	want := func(o ledger.Owner) bool { return o.Tag() == tag && (scope.ID == "" || o.ID() == scope.ID) }
	var out []ledger.Entry
	var errs []error
	add := func(found []ledger.Entry, err error) {
		for _, e := range found {
			if want(e.Owner) {
				out = append(out, e)
			}
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

// RemoveAll removes entries in their order and goes on after a failure. What
// failed is tried again for as long as a round removed something: the order
// within a kind is a guess, and a device is busy while another is on top of it.
// It returns the failures of the last round.
func RemoveAll(ctx context.Context, entries []ledger.Entry) error {
	return removeRounds(entries, func(e ledger.Entry) error { return Remove(ctx, e) })
}

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
