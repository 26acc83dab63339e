package record

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/base/flock"
	"github.com/banger-vm/banger/internal/machine/ledger"
	"github.com/banger-vm/banger/internal/machine/ledger/resource"
)

// A Folder is the two folders of a machine that this process has locked.
type Folder struct {
	Data, Runtime string // paths

	root *Root
	lock *os.File
}

// ID returns the machine's ID.
func (d *Folder) ID() string { return filepath.Base(d.Data) }

// LockFile returns the open file that holds the lock, to pass it on to a
// child process.
func (d *Folder) LockFile() *os.File { return d.lock }

// Unlock releases the lock at once, even if a child process that this process is
// starting has a copy of the descriptor.
func (d *Folder) Unlock() { _ = flock.Close(d.lock) } // if it fails, the end of the process unlocks

// Close closes this process's descriptor of the lock. A child process that
// has inherited the lock keeps it.
func (d *Folder) Close() error { return d.lock.Close() }

// GonePrefix is the prefix of a folder whose machine was removed.
const GonePrefix = ".gone-"

// Delete deletes both folders and releases the lock. It renames the data
// folder first, so that no other process takes the rest of an interrupted
// removal for a machine.
func (d *Folder) Delete() error {
	defer d.Unlock()
	err := os.RemoveAll(d.Runtime)
	gone := filepath.Join(filepath.Dir(d.Data), GonePrefix+filepath.Base(d.Data))
	return errors.Join(err, os.RemoveAll(gone), os.Rename(d.Data, gone), os.RemoveAll(gone))
}

// Release deletes the runtime folder, keeps the data folder and releases the
// lock.
func (d *Folder) Release() error {
	err := os.RemoveAll(d.Runtime)
	d.Unlock()
	return err
}

// LedgerRecord returns the copy of the ledger in rec. A write of it publishes
// all of rec.
func (d *Folder) LedgerRecord(rec *Record) ledger.Record {
	return ledger.Record{Section: rec.Runtime, Write: func(section json.RawMessage) error {
		rec.Runtime = section
		return rec.Write(d.Data)
	}}
}

// Erase gives back the resources that the machine's ledger lists, deletes both
// folders and releases the lock. If no copy of the ledger is intact, Erase goes
// by the marks on the resources. section is the copy of the ledger in the
// machine's record. After an error the machine is unlocked, and the ledger
// keeps the entries that remain.
func (d *Folder) Erase(ctx context.Context, section json.RawMessage) error {
	// Delete removes the record, so there is no use in writing to it.
	entries, _, err := ledger.Read(d.Data, d.ID(), section)
	switch {
	case errors.Is(err, ledger.ErrNoLedger):
		err = d.root.RemoveMarked(ctx, d.ID())
	case err == nil:
		err = removeEntries(ctx, entries)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("remove machine %s: %w", d.ID(), err), d.Release())
	}
	if err := d.Delete(); err != nil {
		return fmt.Errorf("remove machine %s: %w", d.ID(), err)
	}
	return nil
}

// removeEntries gives back the resources of a ledger, the latest first.
func removeEntries(ctx context.Context, entries []ledger.Entry) error {
	var errs []error
	for _, e := range slices.Backward(entries) {
		if err := resource.Remove(ctx, e); err != nil {
			errs = append(errs, fmt.Errorf("remove %s: %w", &e, err))
		}
	}
	return errors.Join(errs...)
}

// IsTemporary reports whether name is a file that a killed writer of the
// record or of the ledger has left.
func IsTemporary(name string) bool {
	first, _, ok := strings.Cut(name, ".tmp-")
	return ok && (first == "."+FileName || first == "."+ledger.FileName)
}

// RemoveTemporaries removes the files that killed writers of the record have
// left. The holder of the lock is the only writer.
func (d *Folder) RemoveTemporaries() error {
	entries, err := os.ReadDir(d.Data)
	errs := []error{err}
	for _, e := range entries {
		if IsTemporary(e.Name()) {
			errs = append(errs, os.Remove(filepath.Join(d.Data, e.Name())))
		}
	}
	return errors.Join(errs...)
}
