package record

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/banger-vm/banger/internal/base/flock"
	"github.com/banger-vm/banger/internal/base/poll"
	"github.com/banger-vm/banger/internal/machine/ledger"
	"github.com/banger-vm/banger/internal/machine/ledger/resource"
	"github.com/banger-vm/banger/internal/machine/spec"
)

// A Root holds the folders of one user's machines. Its methods may be called
// by several processes at once.
type Root struct {
	path     string // the data folder; the marks of resources have a hash of the path
	machines string // one folder for each machine
	runtime  string // one folder for each running machine
	cache    cache
}

// ErrNotFound reports that no machine has the name or ID.
var ErrNotFound = errors.New("no such machine")

// ErrRunning reports that a machine runs, or that another process has locked it.
var ErrRunning = errors.New("machine is running")

// ErrNotRunning reports that a machine does not run.
var ErrNotRunning = errors.New("machine is not running")

// ErrNameTaken reports that another machine has the name.
var ErrNameTaken = errors.New("name is in use by another machine")

// ErrTooMany reports that there are as many machines as the limit allows.
var ErrTooMany = errors.New("too many machines")

// OpenRoot returns the root with the folders data and runtimeDir. It makes
// them, private to the user, if they do not exist. The folder that holds
// runtimeDir must exist.
func OpenRoot(data, runtimeDir string) (*Root, error) {
	path, err := filepath.Abs(data)
	if err != nil {
		return nil, fmt.Errorf("open machines folder: %w", err)
	}
	r := &Root{path: path, machines: filepath.Join(path, "machines")}
	if err := os.MkdirAll(r.machines, 0o700); err != nil {
		return nil, fmt.Errorf("open machines folder: %w", err)
	}
	tag, err := ledger.RootTag(path)
	if err != nil {
		return nil, fmt.Errorf("open runtime folder: %w", err)
	}
	if r.runtime, err = filepath.Abs(filepath.Join(runtimeDir, tag)); err != nil {
		return nil, fmt.Errorf("open runtime folder: %w", err)
	}
	// The folder that holds the runtime folder is the host's: it is not made.
	for _, dir := range []string{filepath.Dir(r.runtime), r.runtime} {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("open runtime folder: %w", err)
		}
	}
	return r, CheckPrivate(filepath.Dir(r.runtime))
}

// CheckPrivate returns an error if another user made the folder dir or may
// enter it. If XDG_RUNTIME_DIR is not set, dir lies in a folder that all users
// share.
func CheckPrivate(dir string) error {
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

// Path returns the data folder.
func (r *Root) Path() string { return r.path }

// Machines returns the folder that has a folder for each machine.
func (r *Root) Machines() string { return r.machines }

// Runtime returns the folder that has the runtime folder of each running machine,
// and the daemon's socket.
func (r *Root) Runtime() string { return r.runtime }

// DataDir returns the data folder of a machine.
func (r *Root) DataDir(id string) string { return filepath.Join(r.machines, id) }

// RuntimeDir returns the runtime folder of a machine. If the machine was started with
// another environment, its folder may lie in another runtime folder than Runtime; its
// ledger has the path.
func (r *Root) RuntimeDir(id string) string {
	own := r.ownRuntimeDir(id)
	if _, err := os.Lstat(own); err == nil {
		return own
	}
	rec, err := Read(r.DataDir(id))
	if err != nil {
		return own
	}
	entries, _, err := ledger.Read(r.DataDir(id), id, rec.Runtime)
	if err != nil {
		return own
	}
	for _, e := range entries {
		if e.Kind == ledger.Folder && filepath.Base(e.Path) == id {
			return e.Path
		}
	}
	return own
}

// ownRuntimeDir returns the runtime folder of a machine that this process starts.
func (r *Root) ownRuntimeDir(id string) string { return filepath.Join(r.runtime, id) }

// NewID returns an ID for a machine. It is random, so that the resources of
// two users on one host have different names.
func NewID() (string, error) {
	b := make([]byte, 6)
	if _, err := rand.Read(b); err != nil {
		return "", err
	}
	return hex.EncodeToString(b), nil
}

// Exclusively calls do while no other process makes or renames machines.
func (r *Root) Exclusively(ctx context.Context, do func() error) error {
	unlock, err := flock.LockFile(ctx, filepath.Join(r.machines, ".lock"))
	if err != nil {
		return fmt.Errorf("lock machines folder: %w", err)
	}
	defer unlock()
	return do()
}

// Lock locks a machine for this process. The error is ErrRunning if another
// process holds the lock.
func (r *Root) Lock(id string) (*Folder, error) {
	if !spec.IsID(id) {
		return nil, fmt.Errorf("machine %q: %w", id, ErrNotFound)
	}
	path := r.DataDir(id)
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("machine %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("lock machine: %w", err)
	}
	locked, err := flock.TryLock(f)
	if err == nil && !locked {
		err = ErrRunning
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("machine %s: %w", id, err)
	}
	// The last holder of the lock may have removed the machine since it was opened.
	if !flock.IsAt(f, path) {
		f.Close()
		return nil, fmt.Errorf("machine %s: %w", id, ErrNotFound)
	}
	return r.folder(id, f), nil
}

func (r *Root) folder(id string, lock *os.File) *Folder {
	return &Folder{Data: r.DataDir(id), Runtime: r.ownRuntimeDir(id), root: r, lock: lock}
}

// Inherit returns the folder of a machine whose lock another process has
// passed on as the open file lock.
func (r *Root) Inherit(id string, lock *os.File) (*Folder, error) {
	if !flock.IsAt(lock, r.DataDir(id)) {
		return nil, fmt.Errorf("machine %s: its lock was not passed on", id)
	}
	return r.folder(id, lock), nil
}

// TryClaim locks a machine while no other process makes or renames machines. So it
// cannot lock the folder of a new machine before the process that makes it does.
func (r *Root) TryClaim(ctx context.Context, id string) (dir *Folder, err error) {
	err = r.Exclusively(ctx, func() (err error) {
		dir, err = r.Lock(id)
		return err
	})
	return dir, err
}

// Claim is TryClaim, but waits if another process has locked the machine for a
// moment; see RetryLocked.
func (r *Root) Claim(ctx context.Context, id string) (dir *Folder, err error) {
	err = r.RetryLocked(ctx, id, func() (err error) {
		dir, err = r.TryClaim(ctx, id)
		return err
	})
	return dir, err
}

// RetryLocked calls do until its error is not ErrRunning. Other processes lock a
// machine for a moment, to see whether it runs or to repair it. RetryLocked soon
// gives up if the machine is recorded as running, because then the process that
// holds the lock most likely is the machine's supervisor.
func (r *Root) RetryLocked(ctx context.Context, id string, do func() error) error {
	const short, long, interval = 50 * time.Millisecond, 5 * time.Second, 5 * time.Millisecond
	begin := time.Now()
	return poll.Until(ctx, interval, func() (bool, error) {
		err := do()
		waited := time.Since(begin)
		if errors.Is(err, ErrRunning) && waited <= long && (waited <= short || r.isAtRest(id)) {
			return false, nil
		}
		return true, err
	})
}

// isAtRest reports whether a machine is recorded in a state other than running.
func (r *Root) isAtRest(id string) bool {
	rec, err := Read(r.DataDir(id))
	return err == nil && rec.State != StateRunning
}

// IsLocked reports whether a process has locked the machine.
func (r *Root) IsLocked(id string) bool {
	dir, err := r.Lock(id)
	if err == nil {
		dir.Unlock()
	}
	return errors.Is(err, ErrRunning)
}

// RemoveMarked gives back all resources of the host that bear the marks of a
// machine.
func (r *Root) RemoveMarked(ctx context.Context, id string) error {
	found, err := resource.Find(ctx, resource.Scope{Data: r.path, ID: id})
	return errors.Join(err, resource.RemoveAll(ctx, found))
}
