package record

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/banger-vm/banger/internal/machine/ledger"
	"github.com/banger-vm/banger/internal/machine/spec"
)

// Reasons for the end of a machine whose supervisor is gone.
const (
	SupervisorKilled = "its supervisor was killed"
	HostBooted       = "the host was booted again"
)

// IDs returns the IDs of all machines, sorted.
func (r *Root) IDs() ([]string, error) {
	entries, err := os.ReadDir(r.machines)
	if err != nil {
		return nil, fmt.Errorf("list machines: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if spec.IsID(e.Name()) {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// Recorded returns the records as they are on disk, newest first. damaged has
// an error for each machine whose record cannot be read.
func (r *Root) Recorded() (records []*Record, damaged []error, err error) {
	ids, err := r.IDs()
	if err != nil {
		return nil, nil, err
	}
	found, errs := r.readAll(ids)
	for i, id := range ids {
		switch {
		case errors.Is(errs[i], fs.ErrNotExist): // half made, half removed, or the record was set aside
			damaged = append(damaged, setAsideError(r.DataDir(id))...)
		case errs[i] != nil:
			damaged = append(damaged, errs[i])
		default:
			records = append(records, found[i])
		}
	}
	slices.SortFunc(records, func(a, b *Record) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return records, damaged, nil
}

// readAll reads the records of ids on all processors: there may be a thousand,
// and decoding one takes most of the time.
func (r *Root) readAll(ids []string) ([]*Record, []error) {
	records, errs := make([]*Record, len(ids)), make([]error, len(ids))
	var next atomic.Int64
	var all sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(ids)) {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(ids)); i = next.Add(1) - 1 {
				records[i], errs[i] = r.cache.read(r.DataDir(ids[i]))
			}
		})
	}
	all.Wait()
	r.cache.keep(ids)
	return records, errs
}

// setAsideError returns an error that names the damaged record of a machine,
// if there is one in its folder.
func setAsideError(dir string) []error {
	files, err := SetAsideFiles(dir)
	if err != nil {
		return []error{err}
	}
	if len(files) == 0 {
		return nil
	}
	return []error{fmt.Errorf("machine %s has no record: a damaged file was kept as %s", filepath.Base(dir), files[0])}
}

// SetAsideFiles returns the paths of the damaged files that were set aside in
// a machine's folder.
func SetAsideFiles(dir string) ([]string, error) {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // the machine was removed in the meantime
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

// List returns the records, newest first, with the state that the locks show.
// damaged has an error for each machine whose record cannot be read.
func (r *Root) List() (records []*Record, damaged []error, err error) {
	records, damaged, err = r.Recorded()
	for _, rec := range records {
		if rec.State == StateRunning && !r.IsLocked(rec.ID) {
			rec.MarkFailed(SupervisorKilled)
		}
	}
	return records, damaged, err
}

// Find returns the machine with the name, the ID or the unambiguous prefix of
// an ID ref. The error is ErrNotFound, or an *spec.InputError if several
// machines have the prefix.
func (r *Root) Find(ref string) (*Record, error) {
	records, _, err := r.List()
	if err != nil {
		return nil, err
	}
	for _, rec := range records {
		if rec.Config.Name == ref || rec.ID == ref {
			return rec, nil
		}
	}
	var found []*Record
	for _, rec := range records {
		if ref != "" && strings.HasPrefix(rec.ID, ref) {
			found = append(found, rec)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("machine %s: %w", ref, ErrNotFound)
	case 1:
		return found[0], nil
	}
	return nil, spec.Errorf("machine %s: prefix of %d machines", ref, len(found))
}

// FindID returns the ID of the machine that Find finds. It also finds a
// machine whose record is damaged, by its whole ID.
func (r *Root) FindID(ref string) (string, error) {
	rec, err := r.Find(ref)
	if err == nil {
		return rec.ID, nil
	}
	if errors.Is(err, ErrNotFound) && spec.IsID(ref) {
		if _, statErr := os.Lstat(r.DataDir(ref)); statErr == nil {
			return ref, nil
		}
	}
	return "", err
}
