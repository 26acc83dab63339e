package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/machine/ledger"
	"github.com/banger-vm/banger/internal/machine/ledger/resource"
)

// A fate is what is to become of a machine that no process holds.
type fate int

const (
	fateRest     fate = iota // in order
	fateTidy                 // holds what it has no use for, or its ledger is damaged
	fateEnd                  // its supervisor is gone: it has exited
	fateRemove               // half-made, half-removed, or to be removed at its end
	fateSetAside             // its record is damaged
	fateKeep                 // its record is missing, and it may have a disk
	fateLeave                // a newer banger made it
)

// A look is what is found of a machine that no process holds. Nothing is
// changed by it.
type look struct {
	id       string
	dir      string // data folder
	fate     fate
	rec      *Record         // nil where none is intact
	recErr   error           // why
	section  json.RawMessage // the ledger's copy in the record
	entries  []ledger.Entry
	damaged  []error // copies of the ledger
	noLedger bool
	ended    string // for the record of what becomes StateExited
}

func (s *Store) look(id string) (*look, error) {
	l := &look{id: id, dir: s.dataDir(id)}
	l.rec, l.recErr = readRecord(l.dir)
	switch {
	case l.recErr == nil:
		l.section = l.rec.Runtime
	case errors.Is(l.recErr, ErrNewer):
		l.fate = fateLeave
		return l, nil
	case isDamaged(l.recErr):
		l.section = damagedSection(l.dir)
	case !errors.Is(l.recErr, fs.ErrNotExist):
		return nil, l.recErr
	}
	var err error
	l.entries, l.damaged, err = ledger.Read(l.dir, id, l.section)
	if l.noLedger = errors.Is(err, ledger.ErrNoLedger); err != nil && !l.noLedger {
		return nil, err
	}
	l.fate, err = l.decide()
	if err == nil && l.fate == fateEnd {
		l.ended, err = lostReason(l.entries)
	}
	return l, err
}

func (l *look) decide() (fate, error) {
	switch {
	case l.rec == nil:
		return l.decideLost()
	case l.rec.State == StateCreating, l.rec.Remove && l.rec.State != StateCreated:
		return fateRemove, nil
	case l.rec.State == StateRunning:
		return fateEnd, nil
	case l.noLedger || len(l.damaged) > 0 || len(l.held()) > 0:
		return fateTidy, nil
	}
	return fateRest, nil
}

// decideLost is decide for a machine without an intact record. Only what
// nothing can be lost with is removed: what a killed maker has left has no
// file but the ledger's, and what a killed remover left has another name.
func (l *look) decideLost() (fate, error) {
	if !errors.Is(l.recErr, fs.ErrNotExist) {
		return fateSetAside, nil
	}
	files, err := os.ReadDir(l.dir)
	if err != nil {
		return fateKeep, fmt.Errorf("look at machine %s: %w", l.id, err)
	}
	for _, f := range files {
		if f.Name() != ledger.FileName && !isTemporary(f.Name()) {
			return fateKeep, nil
		}
	}
	return fateRemove, nil
}

// held is what a machine that does not run has no use for.
func (l *look) held() []ledger.Entry {
	return slices.DeleteFunc(slices.Clone(l.entries), func(e ledger.Entry) bool {
		return e.Kind == ledger.Disk || e.Kind == ledger.Folder
	})
}

// lostReason says what ended a machine that did not end by itself, of whose
// ledger entries are.
func lostReason(entries []ledger.Entry) (string, error) {
	for _, e := range entries {
		if e.Kind != ledger.Process || e.Boot == "" {
			continue
		}
		ended, err := resource.Rebooted(e)
		if err != nil {
			return "", err
		}
		if ended {
			return rebooted, nil
		}
	}
	return lostOwner, nil
}

// wanted reports whether the machine, which has been settled, is to run by its
// policy. A machine that never ran is not, nor one that a user has stopped;
// RestartAlways forgets that with the host's next boot.
func (l *look) wanted() bool {
	if l.rec == nil || l.rec.State != StateExited || l.fate == fateRemove || !l.rec.revives() {
		return false
	}
	return !l.rec.Stopped || l.rec.Config.Restart.Policy == RestartAlways && l.rec.bootedSince()
}

// finding is what a report says of the machine, nil where it is in order. told
// is what its settlement said.
func (l *look) finding(told []error) *Finding {
	f := &Finding{ID: l.id, Level: LevelWarning, Fixable: true}
	if l.rec != nil {
		f.Name = l.rec.Config.Name
	}
	switch l.fate {
	case fateRest:
		if len(told) == 0 {
			return nil
		}
		f.Detail, f.Fix = "its ledger is damaged", "make its ledger whole"
	case fateTidy:
		f.Detail, f.Fix = l.untidy(), "give that back, and make its ledger whole"
	case fateEnd:
		f.Detail, f.Fix = "it is recorded as running, and "+l.ended, "record it as exited"
	case fateRemove:
		f.Detail, f.Fix = "it is half-made, half-removed, or was to go with its end", "remove what is left of it"
	case fateSetAside:
		f.Level, f.Detail = LevelError, l.recErr.Error()
		f.Fix = "set the record aside; the disk stays until banger rm " + l.id
	case fateKeep:
		f.Level, f.Fixable = LevelError, false
		f.Detail, f.Fix = "it has no record, and there are files in "+l.dir, "save what is needed, then banger rm "+l.id
	case fateLeave:
		f.Level, f.Fixable, f.Detail, f.Fix = LevelError, false, l.recErr.Error(), "use that banger"
	}
	for _, err := range append(slices.Clone(l.damaged), told...) {
		if text := err.Error(); !strings.Contains(f.Detail, text) {
			f.Detail += "; " + text
		}
	}
	return f
}

func (l *look) untidy() string {
	var names []string
	for _, e := range l.held() {
		names = append(names, e.String())
	}
	switch {
	case l.noLedger:
		return "it has no intact ledger"
	case len(names) > 0:
		return "it does not run, and holds " + strings.Join(names, ", ")
	}
	return "its ledger is damaged"
}

// asides are the names of files in a machine's folder that were set aside.
func asides(dir string) ([]string, error) {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // removed meanwhile
	}
	if err != nil {
		return nil, fmt.Errorf("look for files that were set aside: %w", err)
	}
	var out []string
	for _, f := range files {
		if strings.Contains(f.Name(), ledger.AsideMark) {
			out = append(out, filepath.Join(dir, f.Name()))
		}
	}
	return out, nil
}
