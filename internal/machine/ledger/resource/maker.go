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

	"github.com/banger-vm/banger/internal/base/poll"
	"github.com/banger-vm/banger/internal/machine/ledger"
)

// A Maker makes resources for one machine. If a method fails, it removes the
// resource again; if that fails too, the entry stays in the ledger.
type Maker struct {
	Ledger *ledger.Ledger
	Owner  ledger.Owner
}

// make notes e, calls do, which makes the resource and completes e, and writes
// the completed e to the ledger.
func (m Maker) make(ctx context.Context, e ledger.Entry, do func(e *ledger.Entry) error) error {
	return m.makeAll(ctx, []ledger.Entry{e}, func(entries []ledger.Entry) error { return do(&entries[0]) })
}

// makeAll is make for several entries. It writes the ledger as often as make
// does. If do fails, makeAll removes the resources that do has made.
func (m Maker) makeAll(ctx context.Context, entries []ledger.Entry, do func(entries []ledger.Entry) error) error {
	if err := m.note(entries); err != nil {
		return err
	}
	err := do(entries)
	if err == nil {
		err = m.Ledger.Identify(entries...)
	} else {
		err = fmt.Errorf("make %s: %w", &entries[0], err)
	}
	if err == nil {
		return nil
	}
	return errors.Join(err, m.undo(ctx, entries))
}

// note adds the owner and the boot to entries and notes them. If the ledger cannot
// be written, it strikes them again.
func (m Maker) note(entries []ledger.Entry) error {
	boot, err := BootID()
	if err != nil {
		return fmt.Errorf("note resources: %w", err)
	}
	for i := range entries {
		entries[i].Owner, entries[i].Boot = m.Owner, boot
	}
	err = m.Ledger.Note(entries...)
	// After ErrRefused, an entry of the same name belongs to a resource in use.
	if err == nil || errors.Is(err, ledger.ErrRefused) {
		return err
	}
	return errors.Join(err, m.Ledger.Strike(entries...)) // one copy may have them
}

// undo removes the resources of entries, which may or may not exist, the latest
// first. It strikes the entries whose removal succeeded.
func (m Maker) undo(ctx context.Context, entries []ledger.Entry) error {
	// The end of ctx may be the reason for the undo.
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
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

// Process starts a process by start, which must add mark to the environment of
// the process and return its ID. name is the role of the process in the machine.
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
			return fmt.Errorf("process %d ended before its start time was read", pid)
		}
		if err != nil {
			return err
		}
		e.PID, e.Start = pid, stat.start
		return nil
	})
}

// Files makes sockets, disks or folders by create, which must make all of them
// and must not replace a file. Each path must have the machine's ID as an
// element. Files writes the ledger twice for any number of paths.
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

// checkFree returns an error if a file exists at path, or if path is not in the
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

// releaseTimeout is the longest wait until the kernel, or a process that has a
// device open for a short time, releases a resource.
const releaseTimeout = 5 * time.Second

// until calls done until it returns true or an error. It returns an error when
// ctx ends or releaseTimeout is over.
func until(ctx context.Context, done func() (bool, error)) error {
	cause := fmt.Errorf("still in use after %v: %w", releaseTimeout, context.DeadlineExceeded)
	ctx, cancel := context.WithTimeoutCause(ctx, releaseTimeout, cause)
	defer cancel()
	const interval = 5 * time.Millisecond
	return poll.Until(ctx, interval, done)
}
