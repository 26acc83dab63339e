package machine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/machine/ledger"
)

// A Store is where the machines of one user are. Its methods may be called
// by several processes at once.
type Store struct {
	Limits Limits // may be set before the first call

	root    string // the data folder, whose number the marks of resources have
	data    string // one folder for each machine
	runtime string // likewise, for what need not last
	memory  memory
}

// ErrNotFound says that no machine has the name or ID asked for.
var ErrNotFound = errors.New("no such machine")

// ErrNameTaken says that another machine has the name.
var ErrNameTaken = errors.New("name is in use by another machine")

// ErrRunning says that a machine runs, and must not for what was asked.
var ErrRunning = errors.New("machine is running")

// Open returns the store in the folders data and runtimeDir, which are made if
// need be, private to the user.
func Open(data, runtimeDir string) (*Store, error) {
	root, err := filepath.Abs(data)
	if err != nil {
		return nil, fmt.Errorf("open machines folder: %w", err)
	}
	s := &Store{root: root, data: filepath.Join(root, "machines")}
	if err := os.MkdirAll(s.data, 0o700); err != nil {
		return nil, fmt.Errorf("open machines folder: %w", err)
	}
	// A user may have several data folders and has one runtime folder: each
	// has a part of its own.
	tag, err := ledger.RootTag(root)
	if err != nil {
		return nil, fmt.Errorf("open runtime folder: %w", err)
	}
	if s.runtime, err = filepath.Abs(filepath.Join(runtimeDir, tag)); err != nil {
		return nil, fmt.Errorf("open runtime folder: %w", err)
	}
	if err := os.MkdirAll(s.runtime, 0o700); err != nil {
		return nil, fmt.Errorf("open runtime folder: %w", err)
	}
	return s, checkPrivate(filepath.Dir(s.runtime))
}

// Runtime is the folder of what need not last: the machines' sockets, and the
// daemon's.
func (s *Store) Runtime() string { return s.runtime }

// checkPrivate refuses a folder of sockets that somebody else made or may
// enter: where XDG_RUNTIME_DIR is not set it lies in a folder of everybody's.
func checkPrivate(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("open runtime folder: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(st.Uid) != os.Geteuid() || info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("runtime folder %s: not a private folder of this user (want mode 0700)", dir)
	}
	return nil
}

// A folder is a machine's folders, locked by this process.
type folder struct {
	data, runtime string
	lock          *os.File
}

func (s *Store) dataDir(id string) string    { return filepath.Join(s.data, id) }
func (s *Store) runtimeDir(id string) string { return filepath.Join(s.runtime, id) }

// locked runs do while no other process makes, renames or sweeps machines.
func (s *Store) locked(ctx context.Context, do func() error) error {
	unlock, err := store.LockFile(ctx, filepath.Join(s.data, ".lock"))
	if err != nil {
		return fmt.Errorf("lock machines folder: %w", err)
	}
	defer unlock()
	return do()
}

// newID returns a machine's ID: random, so that two users' machines on one
// host do not meet either.
func newID() (string, error) {
	b := make([]byte, 6)
	if _, err := rand.Read(b); err != nil {
		return "", err
	}
	return hex.EncodeToString(b), nil
}

// lock takes the machine for this process. The error is ErrRunning when
// another has it.
func (s *Store) lock(id string) (*folder, error) {
	if !idForm.MatchString(id) {
		return nil, fmt.Errorf("machine %q: %w", id, ErrNotFound)
	}
	path := s.dataDir(id)
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("machine %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("lock machine: %w", err)
	}
	if !store.TryLock(f) {
		f.Close()
		return nil, fmt.Errorf("machine %s: %w", id, ErrRunning)
	}
	// Its last owner may have removed it between the two.
	if !isAt(path, f) {
		f.Close()
		return nil, fmt.Errorf("machine %s: %w", id, ErrNotFound)
	}
	return &folder{data: path, runtime: s.runtimeDir(id), lock: f}, nil
}

// unlock lets the machine go at once. Closing the file alone would not while a
// program that is being started by this process has a copy of it.
func (d *folder) unlock() {
	syscall.Flock(int(d.lock.Fd()), syscall.LOCK_UN) //nolint:errcheck // closing it does the same, if later
	d.lock.Close()
}

// isAt reports whether path is what f has open.
func isAt(path string, f *os.File) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(path)
	return err == nil && os.SameFile(open, named)
}

// tryClaim is lock beside no machine that is being made.
func (s *Store) tryClaim(ctx context.Context, id string) (dir *folder, err error) {
	err = s.locked(ctx, func() (err error) {
		dir, err = s.lock(id)
		return err
	})
	return dir, err
}

// claim is tryClaim that outlasts those who lock a machine for a moment.
func (s *Store) claim(ctx context.Context, id string) (dir *folder, err error) {
	err = s.outlast(ctx, id, func() (err error) {
		dir, err = s.tryClaim(ctx, id)
		return err
	})
	return dir, err
}

// outlast calls do again while its error is ErrRunning: a machine is also
// locked to see whether it runs, and to settle it. One that is recorded as
// running most likely is, and is not waited for as long.
func (s *Store) outlast(ctx context.Context, id string, do func() error) error {
	const short, long, every = 50 * time.Millisecond, 5 * time.Second, 5 * time.Millisecond
	begin := time.Now()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := do()
		if waited := time.Since(begin); !errors.Is(err, ErrRunning) || waited > long || waited > short && !s.atRest(id) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// atRest reports whether a machine's record says that it does not run.
func (s *Store) atRest(id string) bool {
	rec, err := readRecord(s.dataDir(id))
	return err == nil && rec.State != StateRunning
}

// running reports whether a process holds the machine.
func (s *Store) running(id string) bool {
	dir, err := s.lock(id)
	if err == nil {
		dir.unlock()
	}
	return errors.Is(err, ErrRunning)
}

// gonePrefix is that of a folder whose machine was removed.
const gonePrefix = ".gone-"

// remove deletes both folders. The data folder loses its name first, so that
// what is left of a removal that was cut off is no machine's.
func (d *folder) remove() error {
	defer d.unlock()
	err := os.RemoveAll(d.runtime)
	gone := filepath.Join(filepath.Dir(d.data), gonePrefix+filepath.Base(d.data))
	return errors.Join(err, os.RemoveAll(gone), os.Rename(d.data, gone), os.RemoveAll(gone))
}

// release keeps the data folder and lets the machine go.
func (d *folder) release() error {
	err := os.RemoveAll(d.runtime)
	d.unlock()
	return err
}

// ids are those of the machines' folders.
func (s *Store) ids() ([]string, error) {
	entries, err := os.ReadDir(s.data)
	if err != nil {
		return nil, fmt.Errorf("list machines: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if idForm.MatchString(e.Name()) {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// list returns the records as they are on disk, newest first. One that cannot
// be read is told of in damaged.
func (s *Store) list() (records []*Record, damaged []error, err error) {
	ids, err := s.ids()
	if err != nil {
		return nil, nil, err
	}
	found, errs := s.readAll(ids)
	for i, id := range ids {
		switch {
		case errors.Is(errs[i], fs.ErrNotExist): // half made or half removed, or the record was set aside
			damaged = append(damaged, setAsideError(s.dataDir(id))...)
		case errs[i] != nil:
			damaged = append(damaged, errs[i])
		default:
			records = append(records, found[i])
		}
	}
	slices.SortFunc(records, func(a, b *Record) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return records, damaged, nil
}

// readAll reads the records of ids on all processors, as there may be a
// thousand: each takes most of its time to be decoded.
func (s *Store) readAll(ids []string) ([]*Record, []error) {
	records, errs := make([]*Record, len(ids)), make([]error, len(ids))
	var next atomic.Int64
	var all sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(ids)) {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(ids)); i = next.Add(1) - 1 {
				records[i], errs[i] = s.memory.recall(s.dataDir(ids[i]))
			}
		})
	}
	all.Wait()
	s.memory.forget(ids)
	return records, errs
}

// setAsideError tells of a machine whose record was set aside.
func setAsideError(dir string) []error {
	files, err := asides(dir)
	if err != nil {
		return []error{err}
	}
	if len(files) == 0 {
		return nil
	}
	return []error{fmt.Errorf("machine %s has no record: a damaged file was kept as %s", filepath.Base(dir), files[0])}
}

// Machines returns the records, newest first, with the state that the host
// shows. Records that cannot be read are told of in damaged.
func (s *Store) Machines() (records []*Record, damaged []error, err error) {
	records, damaged, err = s.list()
	for _, rec := range records {
		if rec.State == StateRunning && !s.running(rec.ID) {
			rec.lose(lostOwner)
		}
	}
	return records, damaged, err
}

// What a record says of a machine whose supervisor is gone.
const (
	lostOwner  = "its supervisor was killed"
	rebooted   = "the host was booted again"
	exitFailed = 125 // as docker's exit code for a failure of its own
)

// Find returns the machine that ref names: its name, its ID or a prefix of
// the ID that fits no other.
func (s *Store) Find(ref string) (*Record, error) {
	records, _, err := s.Machines()
	if err != nil {
		return nil, err
	}
	for _, rec := range records {
		if rec.Config.Name == ref || rec.ID == ref {
			return rec, nil
		}
	}
	var found []*Record
	for _, rec := range records {
		if ref != "" && strings.HasPrefix(rec.ID, ref) {
			found = append(found, rec)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("machine %s: %w", ref, ErrNotFound)
	case 1:
		return found[0], nil
	}
	return nil, inputf("machine %s: prefix of %d machines", ref, len(found))
}

// FindID returns the ID of the machine that ref names as in Find. A machine
// whose record is damaged is named by its whole ID.
func (s *Store) FindID(ref string) (string, error) {
	rec, err := s.Find(ref)
	if err == nil {
		return rec.ID, nil
	}
	if errors.Is(err, ErrNotFound) && idForm.MatchString(ref) {
		if _, statErr := os.Lstat(s.dataDir(ref)); statErr == nil {
			return ref, nil
		}
	}
	return "", err
}

// Folder is where a machine's disk and logs are.
func (s *Store) Folder(id string) string { return s.dataDir(id) }
