package record

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/machine/ledger"
	"github.com/banger-vm/banger/internal/machine/ledger/resource"
)

// Names of a machine's processes in its ledger.
const (
	SupervisorEntry = "supervisor"
	MonitorEntry    = "vmm"
)

// Supervisor returns the ledger's entry of the machine's supervisor. dir is the
// machine's data folder. It returns the zero Entry if the ledger has no process ID
// for the supervisor. The error is ledger.ErrNoLedger if no copy of the ledger is
// intact.
func (r *Record) Supervisor(dir string) (ledger.Entry, error) {
	entries, _, err := ledger.Read(dir, r.ID, r.Runtime)
	for _, e := range entries {
		if e.Kind == ledger.Process && e.Name == SupervisorEntry && e.PID != 0 {
			return e, err
		}
	}
	return ledger.Entry{}, err
}

// A Journal holds the record and the ledger of a machine that this process has
// locked. Its methods may be called from several goroutines.
type Journal struct {
	Dir   *Folder
	Maker resource.Maker // makes resources and enters them in the ledger

	ledger *ledger.Ledger
	mu     sync.Mutex
	rec    *Record
}

// OpenJournal reads the record and the ledger of a locked machine. It repairs
// damaged copies of the ledger. If no copy is intact, it gives back the
// resources that bear the machine's marks and makes a new ledger.
func OpenJournal(ctx context.Context, dir *Folder) (*Journal, error) {
	rec, err := Read(dir.Data)
	if err != nil {
		return nil, err
	}
	owner, err := dir.Owner()
	if err != nil {
		return nil, err
	}
	j := &Journal{Dir: dir, rec: rec}
	copies := ledger.Record{Section: rec.Runtime, Write: j.writeSection}
	j.ledger, _, err = ledger.Open(dir.Data, rec.ID, copies)
	if errors.Is(err, ledger.ErrNoLedger) {
		if err = dir.root.RemoveMarked(ctx, rec.ID); err == nil {
			j.ledger, err = ledger.New(dir.Data, rec.ID, copies)
		}
	}
	if err != nil {
		return nil, err
	}
	j.Maker = resource.Maker{Ledger: j.ledger, Owner: owner}
	return j, nil
}

// Owner returns the mark of the machine's resources.
func (d *Folder) Owner() (ledger.Owner, error) { return ledger.NewOwner(d.ID(), d.root.path) }

// writeSection publishes the record with another copy of the ledger.
func (j *Journal) writeSection(section json.RawMessage) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	next := *j.rec
	next.Runtime = section
	if err := next.Write(j.Dir.Data); err != nil {
		return err
	}
	j.rec.Runtime = section
	return nil
}

// Update changes the record and publishes it. If the write fails, the record is
// unchanged.
func (j *Journal) Update(change func(*Record)) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	next := *j.rec
	change(&next)
	if err := next.Write(j.Dir.Data); err != nil {
		return err
	}
	*j.rec = next
	return nil
}

// Set changes the record. The next write of the ledger publishes it.
func (j *Journal) Set(change func(*Record)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	change(j.rec)
}

// Record returns a copy of the record.
func (j *Journal) Record() Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	return *j.rec
}

// The reserve is a file that keeps space in a running machine's folder, so
// that the machine's end can be recorded when the disk is full.
// RemoveTemporaries removes the reserve that a killed supervisor has left.
const (
	reserveName = "." + FileName + ".tmp-reserve"
	reserveSize = 256 << 10 // bytes: several records, ledgers and blocks of the folder
)

// Reserve makes the reserve. It returns an error if the file system is full. If the
// file system cannot allocate space in advance, the machine runs without a reserve.
func (j *Journal) Reserve() error {
	size := int64(reserveSize)
	if info, err := os.Stat(filepath.Join(j.Dir.Data, FileName)); err == nil {
		size += 2 * info.Size() // a record with large arguments
	}
	f, err := os.OpenFile(filepath.Join(j.Dir.Data, reserveName), os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		err = unix.Fallocate(int(f.Fd()), 0, 0, size)
		f.Close()
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("reserve %d KiB in %s: %w", size>>10, j.Dir.Data, err)
	}
	return nil
}

// FreeReserve frees the reserve for the writes that follow.
func (j *Journal) FreeReserve() {
	os.Remove(filepath.Join(j.Dir.Data, reserveName)) //nolint:errcheck // there may be none
}

// Entries returns the entries of the ledger.
func (j *Journal) Entries() []ledger.Entry { return j.ledger.Entries() }

// Held returns the entries of the ledger except the disk's.
func (j *Journal) Held() []ledger.Entry {
	return slices.DeleteFunc(j.ledger.Entries(), func(e ledger.Entry) bool { return e.Kind == ledger.Disk })
}

// remove gives back the resource of an entry.
func (j *Journal) remove(ctx context.Context, e ledger.Entry) error {
	if e.Kind == ledger.Process && e.PID == os.Getpid() {
		return nil // this process is the supervisor and is about to end
	}
	return resource.Remove(ctx, e)
}

// GiveBack gives back the resources of the machine for whose entries chosen returns
// true. It goes on after a failure.
func (j *Journal) GiveBack(ctx context.Context, chosen func(*ledger.Entry) bool) error {
	return j.ledger.TeardownFunc(ctx, j.remove, chosen)
}

// teardown gives back all resources of the machine except its disk. It goes on
// after a failure.
func (j *Journal) teardown(ctx context.Context) error {
	return j.ledger.Teardown(ctx, j.remove, ledger.Disk)
}

// Clear gives back all resources of the machine except its disk, empties the
// ledger and publishes the record.
func (j *Journal) Clear(ctx context.Context) error {
	j.FreeReserve()
	err := errors.Join(j.teardown(ctx), os.RemoveAll(j.Dir.Runtime))
	if err != nil {
		return fmt.Errorf("give back the machine's resources: %w", err)
	}
	return j.ledger.Clear()
}

// Discard removes the machine with its disk.
func (j *Journal) Discard(ctx context.Context) error {
	return errors.Join(j.teardown(ctx), j.Dir.Delete())
}

// Abandon undoes a start: it clears the machine, or removes it if remove is
// set, and releases the lock.
func (j *Journal) Abandon(ctx context.Context, remove bool) error {
	if remove {
		return j.Discard(ctx)
	}
	return errors.Join(j.Clear(ctx), j.Dir.Close())
}
