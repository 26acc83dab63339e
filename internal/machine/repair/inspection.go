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

// An inspection is the result of looking at a machine that no process has
// locked. Making one changes nothing.
type inspection struct {
	id       string
	dir      string // data folder
	action   repairAction
	rec      *record.Record  // nil if no intact record was found
	recErr   error           // the reason
	section  json.RawMessage // the copy of the ledger in the record
	entries  []ledger.Entry
	damaged  []error // damaged copies of the ledger
	noLedger bool    // no copy is intact
	ended    string  // the reason of markEnded
}

// inspect reads the record and the ledger of a machine and decides on the action.
func inspect(root *record.Root, id string) (*inspection, error) {
	l := &inspection{id: id, dir: root.DataDir(id)}
	l.rec, l.recErr = record.Read(l.dir)
	switch {
	case l.recErr == nil:
		l.section = l.rec.Runtime
	case errors.Is(l.recErr, record.ErrNewer):
		l.action = leaveToNewer
		return l, nil
	case record.IsDamaged(l.recErr):
		l.section = record.DamagedSection(l.dir)
	case !errors.Is(l.recErr, fs.ErrNotExist):
		return nil, l.recErr
	}
	var err error
	l.entries, l.damaged, err = ledger.Read(l.dir, id, l.section)
	if l.noLedger = errors.Is(err, ledger.ErrNoLedger); err != nil && !l.noLedger {
		return nil, err
	}
	l.action, err = l.decide()
	if err == nil && l.action == markEnded {
		l.ended, err = EndReason(l.entries)
	}
	return l, err
}

// decide returns the action for the machine.
func (l *inspection) decide() (repairAction, error) {
	switch {
	case l.rec == nil:
		return l.decideWithoutRecord()
	case l.rec.State == record.StateCreating, l.rec.Remove && l.rec.State != record.StateCreated:
		return removeMachine, nil
	case l.rec.State == record.StateRunning:
		return markEnded, nil
	case l.noLedger || len(l.damaged) > 0 || len(l.unneeded()) > 0:
		return cleanUp, nil
	}
	return doNothing, nil
}

// decideWithoutRecord is decide for a machine without an intact record. It
// removes the machine only if nothing can be lost with it. A killed creation
// leaves no file but the ledger's, and a killed removal leaves a folder of
// another name.
func (l *inspection) decideWithoutRecord() (repairAction, error) {
	if !errors.Is(l.recErr, fs.ErrNotExist) {
		return setRecordAside, nil
	}
	files, err := os.ReadDir(l.dir)
	if err != nil {
		return keepFiles, fmt.Errorf("inspect machine %s: %w", l.id, err)
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
func (l *inspection) unneeded() []ledger.Entry {
	return slices.DeleteFunc(slices.Clone(l.entries), func(e ledger.Entry) bool {
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
func (l *inspection) wantsStart() bool {
	if l.rec == nil || l.rec.State != record.StateExited || l.action == removeMachine || !l.rec.RestartsByDaemon() {
		return false
	}
	return !l.rec.Stopped || l.rec.Config.Restart.Policy == spec.RestartAlways && l.rec.HostRebooted()
}

// finding returns the finding about the machine, or nil if it is in order.
// repaired are the remarks of its repair.
func (l *inspection) finding(repaired []error) *Finding {
	f := &Finding{ID: l.id, Level: LevelWarning, Fixable: true}
	if l.rec != nil {
		f.Name = l.rec.Config.Name
	}
	switch l.action {
	case doNothing:
		if len(repaired) == 0 {
			return nil
		}
		f.Detail, f.Fix = "its ledger is damaged", "repair its ledger"
	case cleanUp:
		f.Detail, f.Fix = l.disorder(), "give back its resources and repair its ledger"
	case markEnded:
		f.Detail, f.Fix = "it is recorded as running, and "+l.ended, "record it as exited"
	case removeMachine:
		f.Detail, f.Fix = "it was not completely made or removed, or was to be removed at its end", "remove the rest of it"
	case setRecordAside:
		f.Level, f.Detail = LevelError, l.recErr.Error()
		f.Fix = "set the record aside; the disk stays until banger rm " + l.id
	case keepFiles:
		f.Level, f.Fixable = LevelError, false
		f.Detail, f.Fix = "it has no record, and there are files in "+l.dir, "copy the files that are needed, then banger rm "+l.id
	case leaveToNewer:
		f.Level, f.Fixable, f.Detail, f.Fix = LevelError, false, l.recErr.Error(), "use the newer banger"
	}
	for _, err := range append(slices.Clone(l.damaged), repaired...) {
		if text := err.Error(); !strings.Contains(f.Detail, text) {
			f.Detail += "; " + text
		}
	}
	return f
}

// disorder describes a machine that cleanUp repairs.
func (l *inspection) disorder() string {
	var names []string
	for _, e := range l.unneeded() {
		names = append(names, e.String())
	}
	switch {
	case l.noLedger:
		return "it has no intact ledger"
	case len(names) > 0:
		return "it does not run, but still has " + strings.Join(names, ", ")
	}
	return "its ledger is damaged"
}
