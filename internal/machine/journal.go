package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/machine/ledger"
	"github.com/banger-vm/banger/internal/machine/ledger/resource"
	"github.com/banger-vm/banger/internal/vmm/qemu"
)

// Names of a machine's processes in its ledger.
const (
	supervisorPart = "supervisor"
	monitorPart    = "vmm"
)

// A journal is the record and the ledger of a machine that this process has
// locked. Its methods may be called from several goroutines.
type journal struct {
	dir    *folder
	ledger *ledger.Ledger
	maker  resource.Maker

	mu  sync.Mutex
	rec *Record
}

// openJournal reads the record and the ledger of a locked machine. What is
// wrong with the ledger's copies is mended; where none is intact the machine
// gives back what has its marks, and gets a new one.
func (s *Store) openJournal(ctx context.Context, dir *folder) (*journal, error) {
	rec, err := readRecord(dir.data)
	if err != nil {
		return nil, err
	}
	owner, err := s.owner(rec.ID)
	if err != nil {
		return nil, err
	}
	j := &journal{dir: dir, rec: rec}
	copies := ledger.Record{Section: rec.Runtime, Write: j.writeSection}
	j.ledger, _, err = ledger.Open(dir.data, rec.ID, copies)
	if errors.Is(err, ledger.ErrNoLedger) {
		if err = s.removeMarked(ctx, rec.ID); err == nil {
			j.ledger, err = ledger.New(dir.data, rec.ID, copies)
		}
	}
	if err != nil {
		return nil, err
	}
	j.maker = resource.Maker{Ledger: j.ledger, Owner: owner}
	return j, nil
}

func (s *Store) owner(id string) (ledger.Owner, error) { return ledger.NewOwner(id, s.root) }

// writeSection publishes the record with another copy of the ledger.
func (j *journal) writeSection(section json.RawMessage) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	next := *j.rec
	next.Runtime = section
	if err := next.write(j.dir.data); err != nil {
		return err
	}
	j.rec.Runtime = section
	return nil
}

// update changes the record and publishes it. When that fails the record is
// as it was.
func (j *journal) update(change func(*Record)) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	next := *j.rec
	change(&next)
	if err := next.write(j.dir.data); err != nil {
		return err
	}
	*j.rec = next
	return nil
}

// set changes the record; the next change of the ledger publishes it.
func (j *journal) set(change func(*Record)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	change(j.rec)
}

// record is the record as it is now.
func (j *journal) record() Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	return *j.rec
}

// The reserve is a file that keeps space in a running machine's folder for the
// record of its end, when the disk may be full. What a killed supervisor
// leaves of it is swept as other temporaries of the record are.
const (
	reserveName = "." + recordName + ".tmp-reserve"
	reserveSize = 256 << 10 // bytes: several records, ledgers and blocks of the folder
)

// reserve makes the reserve. A file system that has none to give, or cannot
// promise space, leaves the machine without.
func (j *journal) reserve() {
	f, err := os.OpenFile(filepath.Join(j.dir.data, reserveName), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	unix.Fallocate(int(f.Fd()), 0, 0, reserveSize) //nolint:errcheck,gosec // as said
}

// freeReserve frees it for what is written next.
func (j *journal) freeReserve() {
	os.Remove(filepath.Join(j.dir.data, reserveName)) //nolint:errcheck // there may be none
}

// remove gives back what an entry stands for.
func (j *journal) remove(ctx context.Context, e ledger.Entry) error {
	if e.Kind == ledger.Process && e.PID == os.Getpid() {
		return nil // this process is about to end
	}
	return resource.Remove(ctx, e)
}

// giveBack gives back the chosen of what the machine holds. It goes on after
// a failure.
func (j *journal) giveBack(ctx context.Context, chosen func(*ledger.Entry) bool) error {
	return j.ledger.TeardownFunc(ctx, j.remove, chosen)
}

// teardown gives back all that the machine holds but its disk. It goes on
// after a failure.
func (j *journal) teardown(ctx context.Context) error {
	return j.ledger.Teardown(ctx, j.remove, ledger.Disk)
}

// clear gives back all that the machine holds but its disk, forgets what was
// entered and publishes the record.
func (j *journal) clear(ctx context.Context) error {
	j.freeReserve()
	err := errors.Join(j.teardown(ctx), os.RemoveAll(j.dir.runtime))
	if err != nil {
		return fmt.Errorf("give back the machine's resources: %w", err)
	}
	return j.ledger.Clear()
}

// discard removes the machine with its disk.
func (j *journal) discard(ctx context.Context) error {
	return errors.Join(j.teardown(ctx), j.dir.remove())
}

// sockets are those of a running machine in its runtime folder.
func (j *journal) sockets() []string {
	var out []string
	for _, name := range append([]string{controlFile, doorFile}, qemu.Sockets()...) {
		out = append(out, filepath.Join(j.dir.runtime, name))
	}
	return out
}
