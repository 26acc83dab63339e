package repair

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/machine/ledger"
	"github.com/banger-vm/banger/internal/machine/ledger/resource"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/spec"
)

// A repairAction is the action that Reconcile takes for a machine that no
// process has locked.
type repairAction int

const (
	doNothing      repairAction = iota // the machine is in order
	cleanUp                            // it holds resources that it does not need, or its ledger is damaged
	markEnded                          // its supervisor is gone: it has exited
	removeMachine                      // it is half made, half removed, or to be removed at its end
	setRecordAside                     // its record is damaged
	keepFiles                          // its record is missing, and it may have a disk
	leaveToNewer                       // a newer banger made it
)

// An inspection has the state of a machine that no process has locked, and the
// action that repairs it.
type inspection struct {
	id       string
	dir      string // data folder
	action   repairAction
	rec      *record.Record  // nil if no intact record was found
	recErr   error           // why rec is nil
	section  json.RawMessage // the copy of the ledger in the record
	entries  []ledger.Entry
	damaged  []error // damaged copies of the ledger
	noLedger bool    // no copy is intact
	ended    string  // for markEnded: why the machine ended
}

// inspect reads the record and the ledger of a machine and decides on the action. It
// changes nothing.
func inspect(root *record.Root, id string) (*inspection, error) {
	in := &inspection{id: id, dir: root.DataDir(id)}
	in.rec, in.recErr = record.Read(in.dir)
	switch {
	case in.recErr == nil:
		in.section = in.rec.Runtime
	case errors.Is(in.recErr, record.ErrNewer):
		in.action = leaveToNewer
		return in, nil
	case record.IsDamaged(in.recErr):
		in.section = record.DamagedSection(in.dir)
	case !errors.Is(in.recErr, fs.ErrNotExist):
		return nil, in.recErr
	}
	var err error
	in.entries, in.damaged, err = ledger.Read(in.dir, id, in.section)
	if in.noLedger = errors.Is(err, ledger.ErrNoLedger); err != nil && !in.noLedger {
		return nil, err
	}
	in.action, err = in.decide()
	if err == nil && in.action == markEnded {
		in.ended, err = EndReason(in.entries)
	}
	return in, err
}

// decide returns the action for the machine.
func (in *inspection) decide() (repairAction, error) {
	switch {
	case in.rec == nil:
		return in.decideWithoutRecord()
	case in.rec.State == record.StateCreating, in.rec.Remove && in.rec.State != record.StateCreated:
		return removeMachine, nil
	case in.rec.State == record.StateRunning:
		return markEnded, nil
	case in.noLedger || len(in.damaged) > 0 || len(in.unneeded()) > 0:
		return cleanUp, nil
	}
	return doNothing, nil
}

// decideWithoutRecord is decide for a machine without an intact record. It
// removes the machine only if nothing can be lost with it. A killed creation
// leaves no file but the ledger's, and a killed removal leaves a folder of
// another name.
func (in *inspection) decideWithoutRecord() (repairAction, error) {
	if !errors.Is(in.recErr, fs.ErrNotExist) {
		return setRecordAside, nil
	}
	files, err := os.ReadDir(in.dir)
	if err != nil {
		return keepFiles, fmt.Errorf("inspect machine %s: %w", in.id, err)
	}
	for _, f := range files {
		if f.Name() != ledger.FileName && !record.IsTemporary(f.Name()) {
			return keepFiles, nil
		}
	}
	return removeMachine, nil
}

// unneeded returns the entries for resources that a machine at rest does not
// need.
func (in *inspection) unneeded() []ledger.Entry {
	return slices.DeleteFunc(slices.Clone(in.entries), func(e ledger.Entry) bool {
		return e.Kind == ledger.Disk || e.Kind == ledger.Folder
	})
}

// EndReason returns the reason for the end of a machine that is recorded as running
// and that no process has locked. entries are the entries of its ledger.
func EndReason(entries []ledger.Entry) (string, error) {
	for _, e := range entries {
		if e.Kind != ledger.Process || e.Boot == "" {
			continue
		}
		ended, err := resource.Rebooted(e)
		if err != nil {
			return "", err
		}
		if ended {
			return record.HostBooted, nil
		}
	}
	return record.SupervisorKilled, nil
}

// wantsStart reports whether the policy of the machine, which has been
// repaired, asks the daemon to start it. A machine that never ran is not
// started, nor is one that a user has stopped; RestartAlways starts that one
// after the next boot of the host.
func (in *inspection) wantsStart() bool {
	if in.rec == nil || in.rec.State != record.StateExited || in.action == removeMachine || !in.rec.RestartsByDaemon() {
		return false
	}
	return !in.rec.Stopped || in.rec.Config.Restart.Policy == spec.RestartAlways && in.rec.HostRebooted()
}

// finding returns the finding about the machine, or nil if it is in order.
// repaired are the remarks of its repair.
func (in *inspection) finding(repaired []error) *Finding {
	f := &Finding{ID: in.id, Level: LevelWarning, Fixable: true}
	if in.rec != nil {
		f.Name = in.rec.Config.Name
	}
	switch in.action {
	case doNothing:
		if len(repaired) == 0 {
			return nil
		}
		f.Detail, f.Fix = "its ledger is damaged", "repair its ledger"
	case cleanUp:
		f.Detail, f.Fix = in.disorder(), "give back its resources and repair its ledger"
	case markEnded:
		f.Detail, f.Fix = "it is recorded as running, and "+in.ended, "record it as exited"
	case removeMachine:
		f.Detail, f.Fix = "it was not completely made or removed, or was to be removed at its end", "remove the rest of it"
	case setRecordAside:
		f.Level, f.Detail = LevelError, in.recErr.Error()
		f.Fix = "set the record aside; the disk stays until banger rm " + in.id
	case keepFiles:
		f.Level, f.Fixable = LevelError, false
		f.Detail, f.Fix = "it has no record, and there are files in "+in.dir, "copy the files that are needed, then banger rm "+in.id
	case leaveToNewer:
		f.Level, f.Fixable, f.Detail, f.Fix = LevelError, false, in.recErr.Error(), "use the newer banger"
	}
	for _, err := range append(slices.Clone(in.damaged), repaired...) {
		if text := err.Error(); !strings.Contains(f.Detail, text) {
			f.Detail += "; " + text
		}
	}
	return f
}

// disorder describes a machine that cleanUp repairs.
func (in *inspection) disorder() string {
	var names []string
	for _, e := range in.unneeded() {
		names = append(names, e.String())
	}
	switch {
	case in.noLedger:
		return "it has no intact ledger"
	case len(names) > 0:
		return "it does not run, but still has " + strings.Join(names, ", ")
	}
	return "its ledger is damaged"
}
