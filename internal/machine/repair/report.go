package repair

import (
	"slices"

	"github.com/banger-vm/banger/internal/machine/ledger"
)

// A Report compares the records of machines with the host.
type Report struct {
	Checks    []Check        `json:"checks,omitempty"`    // of the host
	Machines  []Finding      `json:"machines,omitempty"`  // disorder
	Leftovers []ledger.Entry `json:"leftovers,omitempty"` // resources that no machine needs
	Adopted   []string       `json:"adopted,omitempty"`   // IDs of machines that run
	Restart   []string       `json:"restart,omitempty"`   // IDs of machines that their policies ask to start
}

// HasFaults reports whether there is something to repair. Remarks do not count.
func (r *Report) HasFaults() bool {
	return len(r.Leftovers) > 0 ||
		slices.ContainsFunc(r.Checks, func(c Check) bool { return c.Level == LevelError }) ||
		slices.ContainsFunc(r.Machines, func(f Finding) bool { return f.Fixable || f.Level == LevelError })
}

// A Level is the severity of a finding.
type Level string

// The levels.
const (
	LevelOK      Level = "ok"
	LevelWarning Level = "warning"
	LevelError   Level = "error"
)

// A Finding describes disorder of one machine.
type Finding struct {
	ID      string `json:"id"`
	Name    string `json:"name,omitempty"` // if the record can be read
	Level   Level  `json:"level"`
	Detail  string `json:"detail"`
	Fix     string `json:"fix,omitempty"` // the repair, or advice to the user
	Fixable bool   `json:"fixable"`       // by Reconcile
}

// A Check is the result of checking one thing that machines need of the host.
type Check struct {
	Name   string `json:"name"`
	Level  Level  `json:"level"`
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"` // advice to the user
}
