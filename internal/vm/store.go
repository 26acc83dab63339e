package vm

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/banger-vm/banger/internal/store"
)

// A Store is where the machines of one user are. Its methods may be called
// by several processes at once.
type Store struct {
	data    string // one folder for each machine
	runtime string // likewise, for what need not last
}

// ErrNotFound says that no machine has the name or ID asked for.
var ErrNotFound = errors.New("no such machine")

// ErrNameTaken says that another machine has the name.
var ErrNameTaken = errors.New("name is in use by another machine")

// ErrRunning says that a machine runs, and must not for what was asked.
var ErrRunning = errors.New("machine is running")

// Open returns the store in the folders data and runtime, which are made if
// need be, private to the user.
func Open(data, runtime string) (*Store, error) {
	s := &Store{data: filepath.Join(data, "machines")}
	if err := os.MkdirAll(s.data, 0o700); err != nil {
		return nil, fmt.Errorf("open machines folder: %w", err)
	}
	// A user may have several data folders and has one runtime folder: each
	// sweeps its own part alone.
	path, err := filepath.EvalSymlinks(s.data)
	if err != nil {
		return nil, fmt.Errorf("open machines folder: %w", err)
	}
	const short = 4 // bytes of the hash
	sum := sha256.Sum256([]byte(path))
	s.runtime = filepath.Join(runtime, hex.EncodeToString(sum[:short]))
	if err := os.MkdirAll(s.runtime, 0o700); err != nil {
		return nil, fmt.Errorf("open runtime folder: %w", err)
	}
	return s, checkPrivate(runtime)
}

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

// create makes the folders of a new machine with its record, and locks them.
func (s *Store) create(ctx context.Context, rec *Record) (dir *folder, err error) {
	err = s.locked(ctx, func() error {
		others, _, err := s.list()
		if err != nil {
			return err
		}
		if slices.ContainsFunc(others, func(o *Record) bool { return o.Config.Name == rec.Config.Name }) {
			return fmt.Errorf("machine %s: %w", rec.Config.Name, ErrNameTaken)
		}
		if err := os.Mkdir(s.dataDir(rec.ID), 0o700); err != nil {
			return fmt.Errorf("make machine folder: %w", err)
		}
		if dir, err = s.lock(rec.ID); err != nil {
			return errors.Join(err, os.Remove(s.dataDir(rec.ID)))
		}
		if err := errors.Join(rec.write(dir.data), os.MkdirAll(dir.runtime, 0o700)); err != nil {
			return errors.Join(err, dir.remove())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return dir, nil
}

// lock takes the machine for this process. The error is ErrRunning when
// another has it.
func (s *Store) lock(id string) (*folder, error) {
	f, err := os.Open(s.dataDir(id))
	if err != nil {
		return nil, fmt.Errorf("lock machine: %w", err)
	}
	if !store.TryLock(f) {
		f.Close()
		return nil, fmt.Errorf("machine %s: %w", id, ErrRunning)
	}
	return &folder{data: s.dataDir(id), runtime: s.runtimeDir(id), lock: f}, nil
}

// claim is lock beside no sweep, which locks every machine for a moment.
func (s *Store) claim(ctx context.Context, id string) (dir *folder, err error) {
	err = s.locked(ctx, func() (err error) {
		dir, err = s.lock(id)
		return err
	})
	return dir, err
}

// running reports whether a process holds the machine.
func (s *Store) running(id string) bool {
	dir, err := s.lock(id)
	if err == nil {
		dir.lock.Close()
	}
	return errors.Is(err, ErrRunning)
}

// remove deletes both folders; the record goes first, so that what is left
// of a removal that was cut off is recognised as a leftover.
func (d *folder) remove() error {
	err := os.Remove(filepath.Join(d.data, recordName))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	err = errors.Join(err, os.RemoveAll(d.runtime), os.RemoveAll(d.data))
	d.lock.Close()
	return err
}

// release keeps the data folder and lets the machine go.
func (d *folder) release() error {
	err := os.RemoveAll(d.runtime)
	d.lock.Close()
	return err
}

// list returns the records as they are on disk, newest first. One that cannot
// be read is told of in damaged.
func (s *Store) list() (records []*Record, damaged []error, err error) {
	entries, err := os.ReadDir(s.data)
	if err != nil {
		return nil, nil, fmt.Errorf("list machines: %w", err)
	}
	for _, e := range entries {
		if !idForm.MatchString(e.Name()) {
			continue
		}
		rec, err := readRecord(s.dataDir(e.Name()))
		switch {
		case errors.Is(err, fs.ErrNotExist): // half made or half removed
		case err != nil:
			damaged = append(damaged, err)
		default:
			records = append(records, rec)
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

// Machines returns the records, newest first, with the state that the host
// shows. Records that cannot be read are told of in damaged.
func (s *Store) Machines() (records []*Record, damaged []error, err error) {
	records, damaged, err = s.list()
	for _, rec := range records {
		if rec.State == StateRunning && !s.running(rec.ID) {
			rec.State, rec.Error = StateExited, lostOwner
			rec.ExitCode = exitFailed
		}
	}
	return records, damaged, err
}

// What a record says of a machine whose owner was killed.
const (
	lostOwner  = "its owner was killed"
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
	return nil, fmt.Errorf("machine %s: prefix of %d machines", ref, len(found))
}

// WaitEnd waits until a machine that was asked to stop has ended and its owner
// has let go of it: as long as the guest may take, and a little longer.
func (s *Store) WaitEnd(ctx context.Context, rec *Record, grace time.Duration) error {
	limit := grace + endLimit
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("machine %s: still runs after %v", rec.Config.Name, limit))
	defer cancel()
	const every = 20 * time.Millisecond
	tick := time.NewTicker(every)
	defer tick.Stop()
	for s.running(rec.ID) {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}

// Remove deletes a machine that does not run.
func (s *Store) Remove(ctx context.Context, rec *Record) error {
	dir, err := s.claim(ctx, rec.ID)
	if err != nil {
		return err
	}
	return dir.remove()
}

// Sweep settles what killed owners left: machines that were to go with their
// end are removed, others become exited; half-made folders and runtime
// folders without a machine go. A folder whose record is damaged stays.
// Nothing of a running machine is touched.
func (s *Store) Sweep(ctx context.Context) error {
	return s.locked(ctx, func() error {
		entries, err := os.ReadDir(s.data)
		errs := []error{err}
		for _, e := range entries {
			if idForm.MatchString(e.Name()) {
				errs = append(errs, s.settle(e.Name()))
			}
		}
		entries, err = os.ReadDir(s.runtime)
		errs = append(errs, err)
		for _, e := range entries {
			if _, err := os.Lstat(s.dataDir(e.Name())); errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, os.RemoveAll(filepath.Join(s.runtime, e.Name())))
			}
		}
		return errors.Join(errs...)
	})
}

// settle brings one machine in line with the host.
func (s *Store) settle(id string) error {
	dir, err := s.lock(id)
	if errors.Is(err, ErrRunning) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	rec, err := readRecord(dir.data)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return dir.remove()
	case err != nil:
		return dir.release()
	case rec.Remove:
		return dir.remove()
	case rec.State == StateRunning:
		rec.State, rec.Error, rec.ExitCode = StateExited, lostOwner, exitFailed
		rec.Finished = time.Now().UTC()
		return errors.Join(rec.write(dir.data), dir.release())
	}
	return dir.release()
}
