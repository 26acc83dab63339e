package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/base/jsonfile"
	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/machine/bootplan"
	"github.com/banger-vm/banger/internal/machine/disk"
	"github.com/banger-vm/banger/internal/machine/ledger/resource"
	"github.com/banger-vm/banger/internal/machine/spec"
)

// Schema is the version of the record format that this package writes. It
// reads no other.
const Schema = 1

// maxRecord bounds the size of a record in bytes. It has the arguments of the command twice.
const maxRecord = 48 << 20

// A State is the state of a machine, in docker's words.
type State string

// The states, in the order in which a machine takes them.
const (
	StateCreating State = "creating" // the disk is being made, or the machine boots for the first time
	StateCreated  State = "created"
	StateRunning  State = "running"
	StateExited   State = "exited"
)

// Record is the content of record.json in a machine's folder.
type Record struct {
	Schema    int           `json:"schema"`
	ID        string        `json:"id"`
	Config    spec.Config   `json:"config"`
	Image     digest.Digest `json:"image"`
	ImageName string        `json:"imageName"` // as the user wrote it
	Kernel    digest.Digest `json:"kernel"`
	Plan      bootplan.Plan `json:"plan"`
	// Exec has the environment, user and folder of further commands in the
	// machine.
	Exec     guest.Command `json:"exec"`
	Remove   bool          `json:"remove,omitempty"` // when it ends, or now if it does not run
	Disk     disk.Disk     `json:"disk,omitzero"`
	Created  time.Time     `json:"created"`
	Started  time.Time     `json:"started,omitzero"`
	Finished time.Time     `json:"finished,omitzero"`
	State    State         `json:"state"`
	ExitCode int           `json:"exitCode"`           // of the main command; 125 if the machine failed
	Error    string        `json:"error,omitempty"`    // why the machine ended, if it did not end in order
	Restarts int           `json:"restarts,omitempty"` // by the policy, since a user started the machine
	Stopped  bool          `json:"stopped,omitempty"`  // a user stopped the machine
	Boot     string        `json:"boot,omitempty"`     // boot of the host in which a user stopped it; see resource.BootID
	// Runtime is the copy of the ledger in this record; package ledger defines it.
	Runtime json.RawMessage `json:"runtime,omitempty"`
}

// FileName is the name of the record in a machine's folder.
const FileName = "record.json"

// ExitFailed is docker's exit code for a failure that is not the command's.
const ExitFailed = 125

// ErrNewer reports a record that a newer banger wrote. It must not be changed.
var ErrNewer = errors.New("made by a newer banger")

// Read returns the record in a machine's folder dir. The error is
// fs.ErrNotExist, ErrNewer, one that IsDamaged reports, or an error of the
// host that may pass.
func Read(dir string) (*Record, error) {
	path := filepath.Join(dir, FileName)
	rec := new(Record)
	err := jsonfile.Read(path, maxRecord, rec)
	if rec.Schema > Schema { // this counts more than a field that could not be decoded
		err = fmt.Errorf("schema version %d, this banger knows %d: %w", rec.Schema, Schema, ErrNewer)
	}
	if err == nil {
		err = rec.check(filepath.Base(dir))
	}
	if err != nil {
		return nil, fmt.Errorf("read machine record %s: %w", path, err)
	}
	return rec, nil
}

// IsDamaged reports whether err of Read means that the record's content cannot
// be used, now or later.
func IsDamaged(err error) bool {
	_, host := errors.AsType[*fs.PathError](err)
	return err != nil && !host && !errors.Is(err, ErrNewer)
}

// DamagedSection returns the copy of the ledger in a damaged record, or nil.
// The caller must verify it.
func DamagedSection(dir string) json.RawMessage {
	var rec struct {
		Runtime json.RawMessage `json:"runtime"`
	}
	if jsonfile.Read(filepath.Join(dir, FileName), maxRecord, &rec) != nil {
		return nil
	}
	return rec.Runtime
}

// check returns an error if this version cannot work with the record. folder
// is the name of the folder that holds it.
func (r *Record) check(folder string) error {
	switch {
	case r.Schema != Schema:
		return fmt.Errorf("schema version %d, this banger knows %d", r.Schema, Schema)
	case r.ID != folder:
		return fmt.Errorf("record is of machine %q, its folder of %q", r.ID, folder)
	case !spec.IsName(r.Config.Name):
		return fmt.Errorf("machine name %q: not a valid name", r.Config.Name)
	case r.Disk.File != "" && (r.Disk.File != filepath.Base(r.Disk.File) || r.Disk.File[0] == '.'):
		return fmt.Errorf("disk file %q is not in the machine's folder", r.Disk.File)
	}
	switch r.State {
	case StateCreating, StateCreated, StateRunning, StateExited:
		return nil
	}
	return errors.New("state " + string(r.State) + " is unknown")
}

// MarkStopped records that a user has stopped the machine.
func (r *Record) MarkStopped() {
	r.Stopped, r.Boot = true, ""
	if boot, err := resource.BootID(); err == nil { // without it RestartAlways works as RestartUnlessStopped
		r.Boot = boot
	}
}

// RestartsByDaemon reports whether the machine's policy lets the daemon start it
// again.
func (r *Record) RestartsByDaemon() bool {
	policy := r.Config.Restart.Policy
	return policy == spec.RestartAlways || policy == spec.RestartUnlessStopped
}

// HostRebooted reports whether the host was booted after a user stopped the
// machine. It returns false if that is not known.
func (r *Record) HostRebooted() bool {
	boot, err := resource.BootID()
	return err == nil && r.Boot != "" && r.Boot != boot
}

// MarkFailed records that the machine has ended, and why.
func (r *Record) MarkFailed(why string) { r.State, r.Error, r.ExitCode = StateExited, why, ExitFailed }

// Write publishes the record in a machine's folder dir.
func (r *Record) Write(dir string) error {
	r.Schema = Schema
	if err := jsonfile.Write(filepath.Join(dir, FileName), r); err != nil {
		return fmt.Errorf("write machine record: %w", err)
	}
	return nil
}
