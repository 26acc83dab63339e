package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"time"

	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/base/jsonfile"
	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/machine/ledger/resource"
)

// Schema is the version of the record format that this package writes. It
// reads no other.
const Schema = 1

// maxRecord bounds the size in bytes of a record that is read.
const maxRecord = 4 << 20

// A State is where a machine is in its life, by docker's words.
type State string

// The states in the order of a life.
const (
	StateCreating State = "creating" // its disk is being made, or it boots for the first time
	StateCreated  State = "created"
	StateRunning  State = "running"
	StateExited   State = "exited"
)

// Record is what is kept of a machine, as record.json in its folder.
type Record struct {
	Schema    int           `json:"schema"`
	ID        string        `json:"id"`
	Config    Config        `json:"config"`
	Image     digest.Digest `json:"image"`
	ImageName string        `json:"imageName"` // as the user gave it
	Kernel    digest.Digest `json:"kernel"`
	Plan      Plan          `json:"plan"`
	// Exec is what further commands in the machine start from: the image's
	// environment, user and folder.
	Exec     guest.Command `json:"exec"`
	Remove   bool          `json:"remove,omitempty"` // gone when it ends
	Disk     Disk          `json:"disk,omitzero"`
	Created  time.Time     `json:"created"`
	Started  time.Time     `json:"started,omitzero"`
	Finished time.Time     `json:"finished,omitzero"`
	State    State         `json:"state"`
	ExitCode int           `json:"exitCode"`           // of the main command; 125 when the machine failed
	Error    string        `json:"error,omitempty"`    // why the machine ended, where that was not in order
	Restarts int           `json:"restarts,omitempty"` // by the policy, since a user started it
	Stopped  bool          `json:"stopped,omitempty"`  // a user asked for its end
	Boot     string        `json:"boot,omitempty"`     // of the host, in which that was; see resource.BootID
	// Runtime is the ledger's copy in this record, as package ledger has it.
	Runtime json.RawMessage `json:"runtime,omitempty"`
}

// recordName is the record's file in a machine's folder.
const recordName = "record.json"

// idForm is that of a machine's ID: 12 hexadecimal digits, made at random.
var idForm = regexp.MustCompile(`^[0-9a-f]{12}$`)

// ErrNewer says that a newer banger made a machine. It is left as it is.
var ErrNewer = errors.New("made by a newer banger")

// readRecord returns the record in a machine's folder. The errors are
// fs.ErrNotExist, ErrNewer, what isDamaged is true of, and that of a host that
// cannot read now.
func readRecord(dir string) (*Record, error) {
	path := filepath.Join(dir, recordName)
	rec := new(Record)
	err := jsonfile.Read(path, maxRecord, rec)
	if rec.Schema > Schema { // whatever else could not be decoded
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

// isDamaged reports whether readRecord found a record that says nothing, and
// will not say more the next time.
func isDamaged(err error) bool {
	_, host := errors.AsType[*fs.PathError](err)
	return err != nil && !host && !errors.Is(err, ErrNewer)
}

// damagedSection returns what may be the ledger's copy in a damaged record.
func damagedSection(dir string) json.RawMessage {
	var rec struct {
		Runtime json.RawMessage `json:"runtime"`
	}
	if jsonfile.Read(filepath.Join(dir, recordName), maxRecord, &rec) != nil {
		return nil
	}
	return rec.Runtime
}

// check refuses a record that this version cannot work with. folder is the
// name of the folder that it was found in.
func (r *Record) check(folder string) error {
	switch {
	case r.Schema != Schema:
		return fmt.Errorf("schema version %d, this banger knows %d", r.Schema, Schema)
	case r.ID != folder:
		return fmt.Errorf("record is of machine %q", r.ID)
	case !nameForm.MatchString(r.Config.Name):
		return fmt.Errorf("machine name %q is not one", r.Config.Name)
	case r.Disk.File != "" && (r.Disk.File != filepath.Base(r.Disk.File) || r.Disk.File[0] == '.'):
		return fmt.Errorf("disk file %q is not in the machine's folder", r.Disk.File)
	}
	switch r.State {
	case StateCreating, StateCreated, StateRunning, StateExited:
		return nil
	}
	return errors.New("state " + string(r.State) + " is unknown")
}

// stop says in the record that a user has asked for the machine's end.
func (r *Record) stop() {
	r.Stopped, r.Boot = true, ""
	if boot, err := resource.BootID(); err == nil { // else RestartAlways is as RestartUnlessStopped
		r.Boot = boot
	}
}

// revives reports whether the machine's policy has the daemon start it.
func (r *Record) revives() bool {
	policy := r.Config.Restart.Policy
	return policy == RestartAlways || policy == RestartUnlessStopped
}

// bootedSince reports whether the host was booted after a user stopped the
// machine, as far as that is known.
func (r *Record) bootedSince() bool {
	boot, err := resource.BootID()
	return err == nil && r.Boot != "" && r.Boot != boot
}

// lose says in the record that the machine has ended, and not by itself.
func (r *Record) lose(why string) { r.State, r.Error, r.ExitCode = StateExited, why, exitFailed }

func (r *Record) write(dir string) error {
	r.Schema = Schema
	if err := jsonfile.Write(filepath.Join(dir, recordName), r); err != nil {
		return fmt.Errorf("write machine record: %w", err)
	}
	return nil
}
