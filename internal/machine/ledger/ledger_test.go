package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

const (
	testID = "0123456789ab"
	other  = "ba9876543210"
)

// A fakeRecord is a machine's record in memory. It indents the section, as the
// real record does.
type fakeRecord struct {
	data []byte
	fail error
}

func (r *fakeRecord) write(section json.RawMessage) error {
	if r.fail != nil {
		return r.fail
	}
	data, err := json.MarshalIndent(map[string]any{"id": testID, "runtime": section}, "", "  ")
	r.data = data
	return err
}

func (r *fakeRecord) section(t *testing.T) json.RawMessage {
	t.Helper()
	if r.data == nil {
		return nil
	}
	var rec struct{ Runtime json.RawMessage }
	if err := json.Unmarshal(r.data, &rec); err != nil {
		t.Fatal(err)
	}
	return rec.Runtime
}

func entry(kind Kind, name string) Entry {
	return Entry{Kind: kind, Name: name, Owner: testID + "-00000000"}
}

func newLedger(t *testing.T, entries ...Entry) (*Ledger, string, *fakeRecord) {
	t.Helper()
	dir, rec := t.TempDir(), new(fakeRecord)
	l, err := New(dir, testID, Record{Write: rec.write})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := l.Note(e); err != nil {
			t.Fatal(err)
		}
	}
	return l, dir, rec
}

func fileNames(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestNewestCopyWins(t *testing.T) {
	old, latest := entry(Loop, "disk"), entry(DM, "dm")
	for _, fileIsNewer := range []bool{true, false} {
		l, dir, rec := newLedger(t, old)
		path := filepath.Join(dir, FileName)
		oldFile, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		oldSection := rec.section(t)
		if err := l.Note(latest); err != nil {
			t.Fatal(err)
		}
		section := rec.section(t)
		if fileIsNewer {
			section = oldSection
		} else if err := os.WriteFile(path, oldFile, 0o600); err != nil {
			t.Fatal(err)
		}
		got, damaged, err := Read(dir, testID, section)
		if err != nil || len(damaged) > 0 || !slices.Equal(got, []Entry{old, latest}) {
			t.Errorf("file is newer: %v: %v, %v, %v", fileIsNewer, got, damaged, err)
		}
	}
}

func TestNoteIsOnDiskBeforeItReturns(t *testing.T) {
	l, dir, rec := newLedger(t)
	e := entry(Tap, "bgr")
	if err := l.Note(e); err != nil {
		t.Fatal(err)
	}
	file, _, fileErr := Read(dir, testID, nil)
	section, _, sectionErr := Read(t.TempDir(), testID, rec.section(t))
	if fileErr != nil || sectionErr != nil || !slices.Equal(file, []Entry{e}) || !slices.Equal(section, []Entry{e}) {
		t.Errorf("copies: %v, %v; %v, %v", file, fileErr, section, sectionErr)
	}
	e.Index = 7
	if err := l.Identify(e); err != nil {
		t.Fatal(err)
	}
	if file, _, err := Read(dir, testID, nil); err != nil || !slices.Equal(file, []Entry{e}) {
		t.Errorf("identified: %v, %v", file, err)
	}
	if err := l.Strike(e, entry(Loop, "never noted")); err != nil {
		t.Fatal(err)
	}
	if file, _, err := Read(dir, testID, rec.section(t)); err != nil || len(file) > 0 {
		t.Errorf("struck: %v, %v", file, err)
	}
}

func TestNoteRefuses(t *testing.T) {
	noted := entry(Tap, "bgr")
	for name, e := range map[string]Entry{
		"an unknown kind":             entry("cpu", "0"),
		"no name":                     entry(Tap, ""),
		"the owner is another":        {Kind: Tap, Name: "x", Owner: other + "-00000000"},
		"no owner":                    {Kind: Tap, Name: "x"},
		"an entry that is there":      noted,
		"a path that is not UTF-8":    entry(Disk, "/\xff"),
		"a path that is not absolute": {Kind: Disk, Name: "x", Owner: noted.Owner, Path: "disk.img"},
		"a name that is too long":     entry(Disk, "/"+strings.Repeat("x", maxString)),
	} {
		t.Run(name, func(t *testing.T) {
			l, dir, _ := newLedger(t, noted)
			if err := l.Note(e); !errors.Is(err, ErrRefused) {
				t.Errorf("note: %v, want ErrRefused", err)
			}
			if got, _, err := Read(dir, testID, nil); err != nil || !slices.Equal(got, []Entry{noted}) {
				t.Errorf("entries = %v, %v", got, err)
			}
		})
	}
	l, _, _ := newLedger(t)
	if err := l.Identify(noted); err == nil {
		t.Error("identified an entry that was not noted")
	}
}

// TestIdentifySeveral identifies all entries of a call in one write, or none.
func TestIdentifySeveral(t *testing.T) {
	one, two := entry(Disk, "/one"), entry(Disk, "/two")
	l, dir, _ := newLedger(t, one, two)
	generation := l.body.Generation
	one.File.Ino, two.File.Ino = 1, 2
	if err := l.Identify(two, one); err != nil {
		t.Fatal(err)
	}
	if got, _, err := Read(dir, testID, nil); err != nil || !slices.Equal(got, []Entry{one, two}) {
		t.Errorf("identified: %v, %v", got, err)
	}
	if writes := l.body.Generation - generation; writes != 1 {
		t.Errorf("%d writes", writes)
	}
	changed := one
	changed.File.Ino = 3
	if err := l.Identify(changed, entry(Tap, "never noted")); err == nil {
		t.Error("identified an entry that was not noted")
	}
	if got := l.Entries(); !slices.Equal(got, []Entry{one, two}) {
		t.Errorf("after a refusal: %v", got)
	}
}

func TestFailedWriteKeepsTheLongerList(t *testing.T) {
	held, next := entry(Tap, "bgr"), entry(Loop, "disk")
	full := errors.New("disk full")
	l, dir, rec := newLedger(t, held)
	rec.fail = full
	if err := l.Note(next); !errors.Is(err, full) {
		t.Fatalf("note: %v", err)
	}
	if err := l.Strike(held); !errors.Is(err, full) {
		t.Fatalf("strike: %v", err)
	}
	if got := l.Entries(); !slices.Contains(got, held) {
		t.Errorf("%v lacks the entry that could not be struck", got)
	}
	rec.fail = nil
	if err := l.Strike(held, next); err != nil {
		t.Fatal(err)
	}
	if got, _, err := Read(dir, testID, rec.section(t)); err != nil || len(got) > 0 {
		t.Errorf("afterwards: %v, %v", got, err)
	}
	// Now the write of handles.json fails.
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := l.Note(next); err == nil {
		t.Error("noted in a folder that does not exist")
	}
}

// TestTeardownOnFullDisk opens a ledger with a missing section that Open cannot
// write. Teardown still removes the resources.
func TestTeardownOnFullDisk(t *testing.T) {
	held := entry(Tap, "bgr")
	_, dir, rec := newLedger(t, held)
	full := errors.New("disk full")
	l, damaged, err := Open(dir, testID, Record{Write: func(json.RawMessage) error { return full }})
	if err != nil || len(damaged) != 1 || !errors.Is(damaged[0], full) {
		t.Fatal(damaged, err)
	}
	var removed []Entry
	err = l.Teardown(t.Context(), func(_ context.Context, e Entry) error { removed = append(removed, e); return nil })
	if !errors.Is(err, full) || !slices.Equal(removed, []Entry{held}) {
		t.Errorf("teardown: %v, removed %v", err, removed)
	}
	if got, _, err := Read(dir, testID, rec.section(t)); err != nil || !slices.Equal(got, []Entry{held}) {
		t.Errorf("entries: %v, %v", got, err)
	}
}

func TestLostRecord(t *testing.T) {
	_, dir, _ := newLedger(t, entry(Tap, "bgr"))
	l, damaged, err := Open(dir, testID, Record{})
	if err != nil || len(damaged) > 0 {
		t.Fatal(damaged, err)
	}
	if err := l.Note(entry(Loop, "disk")); err == nil {
		t.Error("noted without a record")
	}
	if err := l.Teardown(t.Context(), func(context.Context, Entry) error { return nil }); err != nil || len(l.Entries()) > 0 {
		t.Errorf("teardown: %v leaves %v", err, l.Entries())
	}
}

func TestTeardown(t *testing.T) {
	stuck := errors.New("in use")
	l, dir, rec := newLedger(t, entry(Folder, "/f"), entry(Loop, "disk"), entry(DM, "dm"), entry(Process, "vmm"))
	var order []string
	err := l.Teardown(t.Context(), func(_ context.Context, e Entry) error {
		order = append(order, e.Name)
		if e.Kind == DM || e.Kind == Loop {
			return stuck
		}
		return nil
	}, Folder)
	if want := []string{"vmm", "dm", "disk"}; !slices.Equal(order, want) {
		t.Errorf("order = %q, want %q", order, want)
	}
	if !errors.Is(err, stuck) || !strings.Contains(err.Error(), "remove dm dm") || !strings.Contains(err.Error(), "remove loop disk") {
		t.Errorf("err = %v, want both failures", err)
	}
	want := []Entry{entry(Folder, "/f"), entry(Loop, "disk"), entry(DM, "dm")}
	if got, _, err := Read(dir, testID, rec.section(t)); err != nil || !slices.Equal(got, want) {
		t.Errorf("left: %v, %v; want %v", got, err, want)
	}
	if err := l.Clear(); !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), "loop disk, dm dm") {
		t.Errorf("clear: %v, want ErrHeld with names", err)
	}
	if err := errors.Join(l.Strike(want[1:]...), l.Clear()); err != nil {
		t.Fatal(err)
	}
	if got, _, err := Read(dir, testID, rec.section(t)); err != nil || len(got) > 0 {
		t.Errorf("cleared: %v, %v", got, err)
	}
}

func TestNewReplacesNewerCopies(t *testing.T) {
	_, dir, rec := newLedger(t, entry(Tap, "a"), entry(Tap, "b"))
	before := rec.section(t)
	if _, err := New(dir, testID, Record{Section: before, Write: rec.write}); err != nil {
		t.Fatal(err)
	}
	if got, _, err := Read(dir, testID, before); err != nil || len(got) > 0 {
		t.Errorf("the old section beside the new file: %v, %v", got, err)
	}
	if _, err := New(dir, "../x", Record{}); err == nil {
		t.Error("New accepted an ID that is not one")
	}
}

func TestOpenRemovesTemporaries(t *testing.T) {
	_, dir, rec := newLedger(t)
	for _, name := range []string{FileName, sectionName + ".damaged-1"} {
		if err := os.WriteFile(filepath.Join(dir, "."+name+".tmp-1"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := Open(dir, testID, Record{rec.section(t), rec.write}); err != nil {
		t.Fatal(err)
	}
	if got := fileNames(t, dir); !slices.Equal(got, []string{FileName}) {
		t.Errorf("folder holds %q", got)
	}
}

func TestSetAsideNumbers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "record.json")
	for n := 1; n <= 3; n++ {
		if err := os.WriteFile(path, []byte{byte(n)}, 0o600); err != nil {
			t.Fatal(err)
		}
		to, err := SetAside(path)
		if err != nil || to != fmt.Sprintf("%s.damaged-%d", path, n) {
			t.Fatalf("set aside as %s, %v", to, err)
		}
		if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, []byte{byte(n)}) {
			t.Errorf("%s: %v, %v", to, got, err)
		}
	}
	if to, err := SetAside(path); to != "" || err != nil {
		t.Errorf("a missing file was set aside as %q, %v", to, err)
	}
}

func TestConcurrentUse(t *testing.T) {
	l, dir, rec := newLedger(t)
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			e := entry(Loop, fmt.Sprint(n))
			if err := l.Note(e); err != nil {
				t.Error(err)
			}
			e.Device = "/dev/loop0"
			if err := errors.Join(l.Identify(e), l.Strike(e)); err != nil {
				t.Error(err)
			}
			l.Entries()
		})
	}
	all.Wait()
	if got, _, err := Read(dir, testID, rec.section(t)); err != nil || len(got) > 0 {
		t.Errorf("left: %v, %v", got, err)
	}
}

func TestOwner(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	link := filepath.Join(b, "link")
	if err := os.Symlink(a, link); err != nil {
		t.Fatal(err)
	}
	ownerA, errA := NewOwner(testID, a)
	ownerB, errB := NewOwner(testID, b)
	ownerL, errL := NewOwner(testID, link+"/")
	if err := errors.Join(errA, errB, errL); err != nil {
		t.Fatal(err)
	}
	if ownerA == ownerB || ownerA != ownerL || ownerA.ID() != testID {
		t.Errorf("owners %s, %s, %s", ownerA, ownerB, ownerL)
	}
	if o, ok := ParseOwner(string(ownerA)); !ok || o != ownerA || len(o.Tag()) != tagLength {
		t.Errorf("parsed %s, %v", o, ok)
	}
	if _, ok := ParseOwner(string(ownerA) + "0"); ok {
		t.Error("an owner with one more digit was accepted")
	}
}
