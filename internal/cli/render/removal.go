package render

import (
	"fmt"

	"github.com/banger-vm/banger/internal/cli/env"
)

// A Removal is a name or a record that a command has removed. One field is set.
type Removal struct {
	Untagged string `json:"untagged,omitempty"`
	Deleted  string `json:"deleted,omitempty"`
}

// Removals shows removals: each on a line as it happens, or all as JSON in the end.
type Removals struct {
	env  *env.Env
	list []Removal
}

// NewRemovals returns Removals that shows its list by the flags of e.
func NewRemovals(e *env.Env) *Removals { return &Removals{env: e, list: []Removal{}} }

// Untagged shows that a record has lost a name.
func (r *Removals) Untagged(name string) { r.add("Untagged: "+name, Removal{Untagged: name}) }

// Deleted shows that a record is deleted.
func (r *Removals) Deleted(id string) { r.add("Deleted: "+id, Removal{Deleted: id}) }

func (r *Removals) add(line string, removal Removal) {
	r.list = append(r.list, removal)
	if !r.env.JSON {
		fmt.Fprintln(r.env.Out, line)
	}
}

// List returns the removals so far.
func (r *Removals) List() []Removal { return r.list }

// Close shows the list, if it is shown as JSON.
func (r *Removals) Close() error {
	if !r.env.JSON {
		return nil
	}
	return JSON(r.env.Out, r.list)
}
