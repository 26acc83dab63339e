package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/machine/control"
	"github.com/banger-vm/banger/internal/machine/ledger/resource"
	"github.com/banger-vm/banger/internal/machine/logs"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/repair"
	"github.com/banger-vm/banger/internal/machine/spec"
)

// A Store makes, starts, lists and removes the machines of one user. Its
// methods may be called by several processes at once. The embedded Client
// serves requests to running machines.
type Store struct {
	control.Client
	Limits Limits // may be set before the first call
	Cache  string // folder of caches, where Examine finds the result of KVM's probe; "" for none
	// Unconfined is for Examine: the configuration starts QEMU without confinement.
	Unconfined bool

	root *record.Root
}

// Open returns the store in the folders data and runtimeDir. It makes them,
// private to the user, if they do not exist.
func Open(data, runtimeDir string) (*Store, error) {
	root, err := record.OpenRoot(data, runtimeDir)
	if err != nil {
		return nil, err
	}
	return &Store{Client: control.Client{Root: root}, root: root}, nil
}

// Runtime returns the folder that has the sockets of the machines and of the daemon.
func (s *Store) Runtime() string { return s.root.Runtime() }

// Folder returns the folder that has a machine's disk and logs.
func (s *Store) Folder(id string) string { return s.root.DataDir(id) }

// Machines returns the records, newest first, with the state that the host
// shows. damaged has an error for each machine whose record cannot be read.
func (s *Store) Machines() (records []*record.Record, damaged []error, err error) {
	return s.root.List()
}

// Find returns the machine with the name, the ID or the unambiguous prefix of
// an ID ref. The error is record.ErrNotFound, or an *spec.InputError if several
// machines have the prefix.
func (s *Store) Find(ref string) (*record.Record, error) { return s.root.Find(ref) }

// FindID returns the ID of the machine that Find finds. It also finds a machine
// whose record is damaged, by its whole ID.
func (s *Store) FindID(ref string) (string, error) { return s.root.FindID(ref) }

// Reconcile repairs all machines after a crash; see repair.Reconcile.
func (s *Store) Reconcile(ctx context.Context) (repair.Report, error) {
	return repair.Reconcile(ctx, s.root)
}

// RepairMachine repairs one machine; see repair.Machine.
func (s *Store) RepairMachine(ctx context.Context, id string) (restart bool, err error) {
	return repair.Machine(ctx, s.root, id)
}

// Fix repairs the faults in a report of Examine; see repair.Fix.
func (s *Store) Fix(ctx context.Context, r repair.Report) (done []string, err error) {
	return repair.Fix(ctx, s.root, r)
}

// Rename gives a machine another name, whether it runs or not. The error is
// record.ErrNameTaken if another machine has the name.
func (s *Store) Rename(ctx context.Context, id, name string) error {
	if err := spec.CheckName(name); err != nil {
		return err
	}
	err := s.root.RetryLocked(ctx, id, func() error {
		return s.root.Exclusively(ctx, func() error { return s.rename(ctx, id, name) })
	})
	if errors.Is(err, record.ErrRunning) { // a machine that runs has been renamed
		return &api.Error{Code: api.CodeBusy, Message: fmt.Sprintf("rename machine %s: busy: another process has locked it", id)}
	}
	return err
}

func (s *Store) rename(ctx context.Context, id, name string) error {
	others, _, err := s.root.Recorded()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(others, func(o *record.Record) bool { return o.Config.Name == name && o.ID != id }) {
		return fmt.Errorf("machine %s: %w", name, record.ErrNameTaken)
	}
	dir, err := s.root.Lock(id)
	if errors.Is(err, record.ErrRunning) {
		return s.renameLocked(ctx, id, name)
	}
	if err != nil {
		return err
	}
	defer dir.Unlock()
	rec, err := record.Read(dir.Data)
	if err != nil {
		return err
	}
	rec.Config.Name = name
	return rec.Write(dir.Data)
}

// renameLocked asks the supervisor of a running machine to write the name.
func (s *Store) renameLocked(ctx context.Context, id, name string) error {
	rec, err := record.Read(s.root.DataDir(id))
	if err != nil {
		return err
	}
	if rec.State != record.StateRunning {
		return fmt.Errorf("machine %s: %w", rec.Config.Name, record.ErrRunning)
	}
	return s.Do(ctx, rec.ID, &control.Request{Rename: name}, nil)
}

// LogOptions select the lines of a log.
type LogOptions struct {
	Console bool // the console's lines instead of the main command's
	Follow  bool // wait for further lines until the machine ends
	Since   time.Time
	Until   time.Time
	Tail    int // only the last lines; negative: all
}

// Logs calls emit with the lines of a machine's log, the oldest first. It
// returns the error of emit. If the image's init is all that runs, the console
// is the log.
func (s *Store) Logs(ctx context.Context, id string, o LogOptions, emit func(api.LogLine) error) error {
	rec, err := record.Read(s.root.DataDir(id))
	if err != nil {
		return err
	}
	name := logs.Command
	if o.Console || rec.Plan.Main == nil {
		name = logs.Console
	}
	options := logs.Options{Since: o.Since, Until: o.Until, Tail: o.Tail}
	if o.Follow {
		options.More = func() bool { return s.root.IsLocked(id) }
	}
	return logs.Read(ctx, filepath.Join(s.root.DataDir(id), name), options, emit)
}

// Access names the files that ssh(1) needs to log in to a machine.
type Access struct {
	Key        string // file with the private key
	KnownHosts string // file with the machine's key
	HostAlias  string // the machine's name in KnownHosts
}

// Access returns the files for logging in to a running machine.
func (s *Store) Access(rec *record.Record) Access {
	dir := s.root.RuntimeDir(rec.ID)
	return Access{filepath.Join(dir, control.KeyFile), filepath.Join(dir, control.KnownHostsFile), control.HostAlias}
}

// SupervisorPID returns the process ID of a machine's supervisor, as the ledger
// has it, or 0.
func (s *Store) SupervisorPID(rec *record.Record) int {
	e, err := rec.Supervisor(s.root.DataDir(rec.ID))
	if err != nil {
		return 0
	}
	return e.PID
}

// WaitGone waits until the supervisor of a machine has ended, in order or killed.
// It returns nil at once if there is none.
func (s *Store) WaitGone(ctx context.Context, id string) error {
	rec, err := record.Read(s.root.DataDir(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	e, err := rec.Supervisor(s.root.DataDir(id))
	if err != nil {
		return fmt.Errorf("look for supervisor of machine %s: %w", id, err)
	}
	if e.PID == 0 {
		return nil
	}
	return resource.WaitEnd(ctx, e)
}
