package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/banger-vm/banger/internal/base/atomicfile"
)

// ErrNoLedger means that neither copy is intact. The resources of the machine
// can then only be found by their marks; see resource.Find.
var ErrNoLedger = errors.New("no intact ledger")

// ErrHeld means that the machine still holds resources, so that its ledger
// cannot be cleared.
var ErrHeld = errors.New("resources are still held")

// ErrRefused means that Note has changed neither copy. If the ledger has an
// entry of the same kind and name, it belongs to another resource.
var ErrRefused = errors.New("refused")

// A Record gives access to the ledger's copy in the machine's record. The zero
// value stands for a lost record: the ledger then has one copy, and Note
// returns an error.
type Record struct {
	Section json.RawMessage             // as it was read, nil if the record has none
	Write   func(json.RawMessage) error // publishes the record with another section, atomically
}

// A Ledger is the list of one machine. Its methods may be called from several
// goroutines.
type Ledger struct {
	dir    string
	record func(json.RawMessage) error

	mu   sync.Mutex
	body body
}

// New makes the empty ledger of machine id in its folder dir. It replaces a
// ledger that is already there.
func New(dir, id string, record Record) (*Ledger, error) {
	if !idForm.MatchString(id) {
		return nil, fmt.Errorf("machine ID %q: want 12 hexadecimal digits", id)
	}
	l := &Ledger{dir: dir, record: record.Write, body: body{Schema: Schema, Machine: id, Entries: []Entry{}}}
	// If one copy cannot be replaced, it must not be newer than this ledger.
	l.body.Generation = newest(dir, id, record.Section)
	if err := l.write(l.body.Entries); err != nil {
		return nil, err
	}
	return l, nil
}

// newest returns the generation of the newest intact copy, 0 if there is none.
func newest(dir, id string, section []byte) (generation uint64) {
	if b, err := readFile(filepath.Join(dir, FileName), id); err == nil {
		generation = b.Generation
	}
	if b, err := decode(section, id); err == nil {
		generation = max(generation, b.Generation)
	}
	return generation
}

// Read returns the entries of the ledger of machine id and changes nothing. It
// reports each damaged copy in damaged. The error is ErrNoLedger if neither
// copy is intact.
func Read(dir, id string, section json.RawMessage) (entries []Entry, damaged []error, err error) {
	c, err := load(dir, id, section)
	if err != nil {
		return nil, nil, err
	}
	damaged = c.damage()
	if c.best() == nil {
		return nil, damaged, fmt.Errorf("ledger of machine %s: %w", id, ErrNoLedger)
	}
	return c.best().Entries, damaged, nil
}

// Open returns the ledger of machine id for reading and writing. It sets damaged
// copies aside, reports them in damaged, and writes both copies from the newest
// intact one. If that write fails, damaged has its error too. The error is
// ErrNoLedger if neither copy is intact; Open has then set both aside.
func Open(dir, id string, record Record) (l *Ledger, damaged []error, err error) {
	c, err := load(dir, id, record.Section)
	if err != nil {
		return nil, nil, err
	}
	damaged, err = c.setAside()
	if err == nil {
		err = removeTemporaries(dir)
	}
	if err != nil {
		return nil, damaged, err
	}
	if c.best() == nil {
		return nil, damaged, fmt.Errorf("ledger of machine %s: %w", id, ErrNoLedger)
	}
	l = &Ledger{dir: dir, record: record.Write, body: *c.best()}
	if c.differ() {
		// A full disk must not prevent the removal of the machine's resources.
		if err := l.write(l.body.Entries); err != nil {
			damaged = append(damaged, fmt.Errorf("restore damaged ledger: %w", err))
		}
	}
	return l, damaged, nil
}

// copies has the two copies as load has read them.
type copies struct {
	dir              string
	file, section    *body // nil if the copy is missing or damaged
	fileErr, sectErr error // the damage, nil if there is none
	raw              json.RawMessage
}

// load reads both copies. It returns an error only if the host cannot read the
// file now: see readError.
func load(dir, id string, section json.RawMessage) (*copies, error) {
	c := &copies{dir: dir, raw: section}
	c.file, c.fileErr = readFile(filepath.Join(dir, FileName), id)
	switch {
	case errors.Is(c.fileErr, fs.ErrNotExist):
		c.fileErr = nil
	case c.fileErr != nil && !errors.Is(c.fileErr, errDamaged):
		return nil, fmt.Errorf("read ledger: %w", c.fileErr)
	}
	// A record of another version has no section, or null.
	if len(section) > 0 && string(section) != "null" {
		c.section, c.sectErr = decode(section, id)
	}
	if c.fileErr != nil {
		c.file = nil
	}
	if c.sectErr != nil {
		c.section = nil
	}
	return c, nil
}

// best returns the newest intact copy, or nil.
func (c *copies) best() *body {
	if c.file == nil || (c.section != nil && c.section.Generation > c.file.Generation) {
		return c.section
	}
	return c.file
}

// differ reports whether the copies must be written again.
func (c *copies) differ() bool {
	return c.file == nil || c.section == nil || c.file.Generation != c.section.Generation ||
		!slices.Equal(c.file.Entries, c.section.Entries)
}

// damage returns an error for each damaged copy.
func (c *copies) damage() (damaged []error) {
	if c.fileErr != nil {
		damaged = append(damaged, fmt.Errorf("ledger %s: %w", filepath.Join(c.dir, FileName), c.fileErr))
	}
	if c.sectErr != nil {
		damaged = append(damaged, fmt.Errorf("section runtime of the machine record in %s: %w: %w", c.dir, errDamaged, c.sectErr))
	}
	return damaged
}

// setAside keeps each damaged copy under another name. It returns an error for
// each damaged copy in damaged, and the failures to keep one in err.
func (c *copies) setAside() (damaged []error, err error) {
	var errs []error
	keep := func(damage error, name string, move func() (string, error)) {
		to, err := move()
		errs = append(errs, err)
		damaged = append(damaged, fmt.Errorf("%s: %w; kept as %s", name, damage, to))
	}
	if path := filepath.Join(c.dir, FileName); c.fileErr != nil {
		keep(c.fileErr, "ledger "+path, func() (string, error) { return SetAside(path) })
	}
	if c.sectErr != nil {
		damage := fmt.Errorf("%w: %w", errDamaged, c.sectErr)
		keep(damage, "section runtime of the machine record in "+c.dir,
			func() (string, error) { return keepSection(c.dir, c.raw) })
	}
	return damaged, errors.Join(errs...)
}

// removeTemporaries removes the temporary files that a killed writer of
// handles.json or of a damaged section has left. None of them is in use, since
// the machine's owner is the only writer.
func removeTemporaries(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("open ledger: %w", err)
	}
	var errs []error
	for _, e := range entries {
		name, _, ok := strings.Cut(e.Name(), ".tmp-")
		if ok && (name == "."+FileName || strings.HasPrefix(name, "."+sectionName+AsideMark)) {
			errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// Entries returns a copy of the list, in the order in which Note was called.
func (l *Ledger) Entries() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.body.Entries)
}

// Note enters resources that the caller is about to make. When it returns nil,
// both copies are on disk. After an error the caller must not make the
// resources. Unless the error is ErrRefused, it must strike the entries, because
// one copy may have them.
func (l *Ledger) Note(entries ...Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.record == nil {
		return fmt.Errorf("note %s: %w: machine %s has no record", names(entries), ErrRefused, l.body.Machine)
	}
	after := append(slices.Clone(l.body.Entries), entries...)
	if err := checkAll(after, l.body.Machine); err != nil {
		return fmt.Errorf("note resource: %w: %w", ErrRefused, err)
	}
	if err := l.write(after); err != nil {
		return fmt.Errorf("note %s: %w", names(entries), err)
	}
	return nil
}

// Identify replaces noted entries by more detailed entries of the same kinds
// and names.
func (l *Ledger) Identify(entries ...Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	after := slices.Clone(l.body.Entries)
	for _, e := range entries {
		i := slices.IndexFunc(after, func(o Entry) bool { return e.same(&o) })
		if i < 0 {
			return fmt.Errorf("identify %s: it was not noted", &e)
		}
		if err := e.check(l.body.Machine); err != nil {
			return fmt.Errorf("identify resource: %w", err)
		}
		after[i] = e
	}
	if err := l.write(after); err != nil {
		return fmt.Errorf("identify %s: %w", names(entries), err)
	}
	return nil
}

// Strike removes the entries of resources that no longer exist. It ignores
// entries that are not on the list.
func (l *Ledger) Strike(entries ...Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	after := slices.DeleteFunc(slices.Clone(l.body.Entries), func(e Entry) bool {
		return slices.ContainsFunc(entries, func(o Entry) bool { return e.same(&o) })
	})
	if len(after) == len(l.body.Entries) {
		return nil
	}
	if err := l.write(after); err != nil {
		return fmt.Errorf("strike %s: %w", names(entries), err)
	}
	return nil
}

// Clear empties the ledger of a machine that has ended. The error is ErrHeld if
// anything but disks and folders, which a machine keeps when it ends, is
// entered.
func (l *Ledger) Clear() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := slices.DeleteFunc(slices.Clone(l.body.Entries), func(e Entry) bool { return e.Kind == Disk || e.Kind == Folder })
	if len(held) > 0 {
		return fmt.Errorf("clear ledger of machine %s: %s: %w", l.body.Machine, names(held), ErrHeld)
	}
	return l.write([]Entry{})
}

// Teardown calls remove for each entry whose kind is not in keep, the latest
// first, and strikes the entries whose removal succeeded. It continues after a
// failure and returns all failures.
//
// remove must be idempotent: if the process is killed before the strike, a later
// Teardown calls it again for the same entry.
func (l *Ledger) Teardown(ctx context.Context, remove func(context.Context, Entry) error, keep ...Kind) error {
	return l.TeardownFunc(ctx, remove, func(e *Entry) bool { return !slices.Contains(keep, e.Kind) })
}

// TeardownFunc is Teardown of the entries for which chosen returns true.
func (l *Ledger) TeardownFunc(ctx context.Context, remove func(context.Context, Entry) error, chosen func(*Entry) bool) error {
	var gone []Entry
	var errs []error
	for _, e := range slices.Backward(l.Entries()) {
		if !chosen(&e) {
			continue
		}
		if err := remove(ctx, e); err != nil {
			errs = append(errs, fmt.Errorf("remove %s: %w", &e, err))
		} else {
			gone = append(gone, e)
		}
	}
	return errors.Join(append(errs, l.Strike(gone...))...)
}

// write writes entries to both copies. If it fails, the copies on disk may
// differ, and the list in memory is the longer one of the old and the new list:
// an entry without a resource does no harm, a resource without an entry does.
func (l *Ledger) write(entries []Entry) error {
	next := l.body
	next.Generation++
	next.Entries = entries
	data, err := next.encode()
	if err != nil {
		return err
	}
	l.body.Generation = next.Generation // also after an error: one copy may have it
	if len(entries) >= len(l.body.Entries) {
		l.body.Entries = entries
	}
	if l.record != nil {
		if err := l.record(data); err != nil {
			return fmt.Errorf("write ledger to machine record: %w", err)
		}
	}
	if err := atomicfile.Write(filepath.Join(l.dir, FileName), append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write ledger: %w", err)
	}
	l.body.Entries = entries
	return nil
}

func names(entries []Entry) string {
	var out []string
	for i := range entries {
		out = append(out, entries[i].String())
	}
	return strings.Join(out, ", ")
}
