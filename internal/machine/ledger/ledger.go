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

// ErrNoLedger says that neither copy is intact. What the machine holds is
// then to be found by its marks.
var ErrNoLedger = errors.New("no intact ledger")

// ErrHeld says that a machine still holds what a cleared ledger would forget.
var ErrHeld = errors.New("resources are still held")

// ErrRefused says that a Note has changed neither copy, so that an entry of
// the same kind and name, if there is one, is another resource's.
var ErrRefused = errors.New("refused")

// A Record is the ledger's copy in the machine's record. The zero value is
// that of a machine whose record is lost: there is one copy then, and nothing
// can be noted.
type Record struct {
	Section json.RawMessage             // as it was read, nil where there is none
	Write   func(json.RawMessage) error // publishes the record with another section, atomically
}

// A Ledger is one machine's list. Its methods may be called from several
// goroutines.
type Ledger struct {
	dir    string
	record func(json.RawMessage) error

	mu   sync.Mutex
	body body
}

// New makes the empty ledger of machine id in its folder dir, in place of
// one that may be there.
func New(dir, id string, record Record) (*Ledger, error) {
	if !idForm.MatchString(id) {
		return nil, fmt.Errorf("machine ID %q: want 12 hexadecimal digits", id)
	}
	l := &Ledger{dir: dir, record: record.Write, body: body{Schema: Schema, Machine: id, Entries: []Entry{}}}
	// A copy that could not be replaced must not be newer than this ledger's.
	l.body.Generation = newest(dir, id, record.Section)
	if err := l.write(l.body.Entries); err != nil {
		return nil, err
	}
	return l, nil
}

func newest(dir, id string, section []byte) (generation uint64) {
	if b, err := readFile(filepath.Join(dir, FileName), id); err == nil {
		generation = b.Generation
	}
	if b, err := decode(section, id); err == nil {
		generation = max(generation, b.Generation)
	}
	return generation
}

// Read returns what the ledger of machine id lists and changes nothing. What
// is wrong with its copies is told of in damaged. The error is ErrNoLedger
// when none is intact.
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

// Open returns the ledger of machine id for going on with it: copies that are
// damaged are set aside and told of in damaged, and both are as the newest
// intact one again; where that cannot be written, damaged says so too. The
// error is ErrNoLedger when there is none; then both have been set aside.
func Open(dir, id string, record Record) (l *Ledger, damaged []error, err error) {
	c, err := load(dir, id, record.Section)
	if err != nil {
		return nil, nil, err
	}
	damaged, err = c.setAside()
	if err == nil {
		err = sweepTemporaries(dir)
	}
	if err != nil {
		return nil, damaged, err
	}
	if c.best() == nil {
		return nil, damaged, fmt.Errorf("ledger of machine %s: %w", id, ErrNoLedger)
	}
	l = &Ledger{dir: dir, record: record.Write, body: *c.best()}
	if c.differ() {
		// A full disk must not keep a machine's resources from being given back.
		if err := l.write(l.body.Entries); err != nil {
			damaged = append(damaged, fmt.Errorf("restore damaged ledger: %w", err))
		}
	}
	return l, damaged, nil
}

// copies are the two as they were found.
type copies struct {
	dir              string
	file, section    *body // nil where the copy does not count
	fileErr, sectErr error // why, where it is damaged
	raw              json.RawMessage
}

func load(dir, id string, section json.RawMessage) (*copies, error) {
	c := &copies{dir: dir, raw: section}
	c.file, c.fileErr = readFile(filepath.Join(dir, FileName), id)
	switch {
	case errors.Is(c.fileErr, fs.ErrNotExist):
		c.fileErr = nil
	case c.fileErr != nil && !errors.Is(c.fileErr, errDamaged):
		return nil, fmt.Errorf("read ledger: %w", c.fileErr)
	}
	// A record that is not of this version has no section, or null.
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

// best is the newest intact copy, or nil.
func (c *copies) best() *body {
	if c.file == nil || (c.section != nil && c.section.Generation > c.file.Generation) {
		return c.section
	}
	return c.file
}

// differ reports whether the copies must be written anew.
func (c *copies) differ() bool {
	return c.file == nil || c.section == nil || c.file.Generation != c.section.Generation ||
		!slices.Equal(c.file.Entries, c.section.Entries)
}

func (c *copies) damage() (damaged []error) {
	if c.fileErr != nil {
		damaged = append(damaged, fmt.Errorf("ledger %s: %w", filepath.Join(c.dir, FileName), c.fileErr))
	}
	if c.sectErr != nil {
		damaged = append(damaged, fmt.Errorf("section runtime of the machine record in %s: %w: %w", c.dir, errDamaged, c.sectErr))
	}
	return damaged
}

func (c *copies) setAside() (damaged []error, err error) {
	var errs []error
	keep := func(why error, what string, move func() (string, error)) {
		to, err := move()
		errs = append(errs, err)
		damaged = append(damaged, fmt.Errorf("%s: %w; kept as %s", what, why, to))
	}
	if path := filepath.Join(c.dir, FileName); c.fileErr != nil {
		keep(c.fileErr, "ledger "+path, func() (string, error) { return SetAside(path) })
	}
	if c.sectErr != nil {
		why := fmt.Errorf("%w: %w", errDamaged, c.sectErr)
		keep(why, "section runtime of the machine record in "+c.dir,
			func() (string, error) { return keepSection(c.dir, c.raw) })
	}
	return damaged, errors.Join(errs...)
}

// sweepTemporaries removes what a killed writer left of handles.json and of
// sections set aside; the machine's owner is the only writer.
func sweepTemporaries(dir string) error {
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

// Entries returns the list in the order in which it was noted.
func (l *Ledger) Entries() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.body.Entries)
}

// Section returns what the record's copy is to be, for a record that is
// written for another reason.
func (l *Ledger) Section() (json.RawMessage, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.body.encode()
}

// Note enters resources that are about to be made. When it returns without an
// error both copies are on disk; after an error nothing may be made, and unless
// it is ErrRefused the entries are to be struck, as one copy may have them.
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

// Identify replaces entries by such as say more of the same resources.
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

// Strike takes off entries whose resources are gone. Those that are not on
// the list are no error.
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

// Clear empties the ledger of a machine that has ended. The error is ErrHeld
// while anything but disks and folders, which outlive an end, is entered.
func (l *Ledger) Clear() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := slices.DeleteFunc(slices.Clone(l.body.Entries), func(e Entry) bool { return e.Kind == Disk || e.Kind == Folder })
	if len(held) > 0 {
		return fmt.Errorf("clear ledger of machine %s: %s: %w", l.body.Machine, names(held), ErrHeld)
	}
	return l.write([]Entry{})
}

// Teardown gives back what is entered, the latest first, and strikes what is
// gone. It goes on after a failure and returns all of them; what could not be
// given back stays entered. Kinds in keep are left alone.
//
// remove must be idempotent: when the process is killed before the strike, it
// is called again.
func (l *Ledger) Teardown(ctx context.Context, remove func(context.Context, Entry) error, keep ...Kind) error {
	return l.GiveBack(ctx, remove, func(e *Entry) bool { return !slices.Contains(keep, e.Kind) })
}

// GiveBack is Teardown of the entries that are chosen.
func (l *Ledger) GiveBack(ctx context.Context, remove func(context.Context, Entry) error, chosen func(*Entry) bool) error {
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

// write publishes entries as both copies. Where it fails, the copies on disk
// may differ, and the list in memory is the longer one: a resource that is
// entered and gone does no harm.
func (l *Ledger) write(entries []Entry) error {
	next := l.body
	next.Generation++
	next.Entries = entries
	data, err := next.encode()
	if err != nil {
		return err
	}
	l.body.Generation = next.Generation // one copy may have it even after an error
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
