package resource

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/banger-vm/banger/internal/machine/ledger"
)

// A Maker makes resources for one machine. Where a method fails nothing of
// its resource is left, and what could not be removed stays entered.
type Maker struct {
	Ledger *ledger.Ledger
	Owner  ledger.Owner
}

// make notes e, calls do, which makes the resource and completes e, and
// enters what e has become.
func (m Maker) make(ctx context.Context, e ledger.Entry, do func(e *ledger.Entry) error) error {
	return m.makeAll(ctx, []ledger.Entry{e}, func(entries []ledger.Entry) error { return do(&entries[0]) })
}

// makeAll is make for several at once: the ledger is written as often as for
// one. What do has made of them before an error goes with the rest.
func (m Maker) makeAll(ctx context.Context, entries []ledger.Entry, do func(entries []ledger.Entry) error) error {
	boot, err := BootID()
	if err != nil {
		return fmt.Errorf("make %s: %w", &entries[0], err)
	}
	for i := range entries {
		entries[i].Owner, entries[i].Boot = m.Owner, boot
	}
	err = m.Ledger.Note(entries...)
	if errors.Is(err, ledger.ErrRefused) {
		return err // what is entered by this name is alive
	}
	if err != nil {
		return errors.Join(err, m.Ledger.Strike(entries...)) // one copy may have it
	}
	first := entries[0].String()
	if err = do(entries); err == nil {
		err = m.Ledger.Identify(entries...)
	} else {
		err = fmt.Errorf("make %s: %w", first, err)
	}
	if err == nil {
		return nil
	}
	return errors.Join(err, m.undo(ctx, entries))
}

// undo removes what may have been made, the latest first, and strikes what is
// gone.
func (m Maker) undo(ctx context.Context, entries []ledger.Entry) error {
	// The caller's ctx may be what ended it.
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	var gone []ledger.Entry
	var errs []error
	for _, e := range slices.Backward(entries) {
		if err := Remove(limited, e); err != nil {
			errs = append(errs, fmt.Errorf("remove %s: %w", &e, err))
			continue
		}
		gone = append(gone, e)
	}
	return errors.Join(append(errs, m.Ledger.Strike(gone...))...)
}

// Process starts a process by start, which is to add mark to its environment
// and returns its ID. name is its part in the machine.
func (m Maker) Process(ctx context.Context, name string, start func(mark string) (pid int, err error)) error {
	if name == "" || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("name of process %q: want one without '/'", name)
	}
	return m.make(ctx, ledger.Entry{Kind: ledger.Process, Name: name}, func(e *ledger.Entry) error {
		pid, err := start(processMark(m.Owner, name))
		if err != nil {
			return err
		}
		stat, err := readStat(pid)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("process %d ended at once", pid)
		}
		if err != nil {
			return err
		}
		e.PID, e.Start = pid, stat.start
		return nil
	})
}

// Files makes sockets, disks or folders by create, which must make all of them
// and replace no file. Each path must have the machine's ID as an element. The
// ledger is written twice, as for one file.
func (m Maker) Files(ctx context.Context, kind ledger.Kind, paths []string, create func() error) error {
	if len(paths) == 0 {
		return fmt.Errorf("make %s: no path", kind)
	}
	entries := make([]ledger.Entry, len(paths))
	for i, path := range paths {
		entries[i] = ledger.Entry{Kind: kind, Name: path, Path: path}
		if err := m.checkFree(path); err != nil {
			return fmt.Errorf("make %s: %w", &entries[i], err)
		}
	}
	return m.makeAll(ctx, entries, func(entries []ledger.Entry) error {
		if err := create(); err != nil {
			return err
		}
		for i := range entries {
			id, _, err := fileID(entries[i].Path)
			if err != nil {
				return err
			}
			entries[i].File = id
		}
		return nil
	})
}

// checkFree refuses a path at which there is something, or that is not in the
// machine's folders.
func (m Maker) checkFree(path string) error {
	if err := checkPath(path, m.Owner.ID()); err != nil {
		return err
	}
	_, err := os.Lstat(path)
	if err == nil {
		return os.ErrExist
	}
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// patience is how long the kernel, or whoever briefly opened a device, may
// take to let a resource go.
const patience = 5 * time.Second

// until calls done until it reports true, an error, or that patience is over.
func until(ctx context.Context, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	const every = 5 * time.Millisecond
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("still there: %w", ctx.Err())
		case <-tick.C:
		}
	}
}
