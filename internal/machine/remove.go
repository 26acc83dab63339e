package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/banger-vm/banger/internal/machine/record"
)

// Remove removes a machine that does not run, given by its whole ID, with all
// resources that it holds. Its record may be damaged or missing. Remove goes on
// after a failure; the machine's ledger keeps the resources that could not be
// given back for another attempt. The errors are record.ErrNotFound,
// record.ErrRunning and record.ErrNewer.
func (s *Store) Remove(ctx context.Context, id string) error {
	dir, err := claim(ctx, s.Client, id)
	if err != nil {
		return err
	}
	rec, err := record.Read(dir.Data)
	if err == nil {
		return removeRecorded(ctx, dir, rec)
	}
	if record.IsDamaged(err) || errors.Is(err, fs.ErrNotExist) {
		return dir.Erase(ctx, record.DamagedSection(dir.Data))
	}
	dir.Unlock()
	return fmt.Errorf("remove machine %s: %w", id, err)
}

// removeRecorded marks the machine first, so that repair completes an
// interrupted removal.
func removeRecorded(ctx context.Context, dir *record.Folder, rec *record.Record) error {
	rec.State, rec.Remove = record.StateExited, true
	err := rec.Write(dir.Data)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		err = nil // the removal frees space
	}
	if err != nil {
		dir.Unlock()
		return fmt.Errorf("remove machine %s: %w", rec.ID, err)
	}
	return dir.Erase(ctx, rec.Runtime)
}

// Prune removes the machines that do not run and for which keep returns false.
// It returns their IDs and the bytes that their files took; extents that they
// share with images count, too. It goes on after a failure.
func (s *Store) Prune(ctx context.Context, keep func(*record.Record) bool) (ids []string, freed int64, err error) {
	records, _, err := s.root.List()
	if err != nil {
		return nil, 0, err
	}
	var errs []error
	for _, rec := range records {
		if rec.State == record.StateRunning || rec.State == record.StateCreating || keep(rec) {
			continue
		}
		size, err := ownBytes(s.root.DataDir(rec.ID))
		if err == nil {
			err = s.Remove(ctx, rec.ID)
		}
		switch {
		case err == nil:
			ids, freed = append(ids, rec.ID), freed+size
		case errors.Is(err, record.ErrRunning) || errors.Is(err, record.ErrNotFound): // changed since it was listed
		default:
			errs = append(errs, err)
		}
	}
	return ids, freed, errors.Join(errs...)
}

// ownBytes returns the bytes that the files in a folder take. It leaves out files
// that have a second name, as the image's disk has.
func ownBytes(dir string) (sum int64, err error) {
	const blockSize = 512 // the unit of st_blocks, stat(2)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, fmt.Errorf("measure machine folder: %w", err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // a temporary file that was renamed
		}
		if err != nil {
			return 0, fmt.Errorf("measure machine folder: %w", err)
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink == 1 {
			sum += st.Blocks * blockSize
		}
	}
	return sum, nil
}
