// Package named lists and finds records that have names and a digest as their ID, such
// as images and kernels, and keeps each name with one record. The caller reads and
// writes the records.
package named

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/banger-vm/banger/internal/base/digest"
)

// minPrefix is the lowest number of digits in a prefix of an ID.
const minPrefix = 4

// A Record is a pointer to a record.
type Record interface {
	// Label returns the parts of the record that this package uses.
	Label() Label
}

// A Label has the ID and the names of a record, and the time at which it was added.
type Label struct {
	ID    digest.Digest
	Names *[]string // of the record, which changes with them
	Added time.Time
}

// List calls read for the path of each entry of dir that wanted selects, and returns the
// records, the newest first. If a record cannot be read, List omits it and adds the
// error to damaged, because the other records still work. If two records have the same
// name, only the newer one keeps it: a process that is killed while it moves a name
// leaves the name with both.
func List[T Record](dir string, wanted func(fs.DirEntry) bool, read func(path string) (T, error)) (records []T, damaged []error, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || !wanted(e) {
			continue
		}
		record, err := read(filepath.Join(dir, e.Name()))
		switch {
		case errors.Is(err, fs.ErrNotExist): // another process has removed it
		case err != nil:
			damaged = append(damaged, err)
		default:
			records = append(records, record)
		}
	}
	sortNewest(records)
	dropOldNames(records)
	return records, damaged, nil
}

func sortNewest[T Record](records []T) {
	slices.SortFunc(records, func(a, b T) int {
		x, y := a.Label(), b.Label()
		if c := y.Added.Compare(x.Added); c != 0 {
			return c
		}
		return strings.Compare(string(x.ID), string(y.ID))
	})
}

// dropOldNames removes from each record the names of the records before it.
func dropOldNames[T Record](records []T) {
	taken := map[string]bool{}
	for _, r := range records {
		names := r.Label().Names
		*names = slices.DeleteFunc(*names, func(name string) bool {
			dropped := taken[name]
			taken[name] = true
			return dropped
		})
	}
}

// ByName returns the record that has the given name. ok is false if there is none.
func ByName[T Record](records []T, name string) (record T, ok bool) {
	i := slices.IndexFunc(records, func(r T) bool { return slices.Contains(*r.Label().Names, name) })
	if i < 0 {
		return record, false
	}
	return records[i], true
}

// HasPrefix reports whether ref is the ID of r or a prefix of its hexadecimal digits that
// is long enough, with or without "sha256:".
func HasPrefix(r Record, ref string) bool {
	prefix := strings.TrimPrefix(ref, "sha256:")
	return len(prefix) >= minPrefix && strings.HasPrefix(r.Label().ID.Hex(), prefix)
}

// ShortIDs returns the short IDs of the records, separated by commas.
func ShortIDs[T Record](records []T) string {
	var ids []string
	for _, r := range records {
		ids = append(ids, r.Label().ID.Short())
	}
	return strings.Join(ids, ", ")
}

// TakeNames removes the names of owner from the other records, and calls write for each
// record that has lost one. The caller has already written owner, so a process that is
// killed here leaves a name with two records, not with none; List then repairs it.
func TakeNames[T Record](records []T, owner T, write func(T) error) error {
	taken := owner.Label()
	for _, r := range records {
		l := r.Label()
		if l.ID == taken.ID {
			continue
		}
		before := len(*l.Names)
		*l.Names = slices.DeleteFunc(*l.Names, func(name string) bool { return slices.Contains(*taken.Names, name) })
		if len(*l.Names) == before {
			continue
		}
		if err := write(r); err != nil {
			return err
		}
	}
	return nil
}
