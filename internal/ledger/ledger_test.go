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

// A fakeRecord is a machine's record whose section is indented with the rest,
// as a record is.
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

// A state is what becomes of one copy; it returns the bytes of it, or nil
// where it is missing.
type state struct {
	name   string
	intact bool
	damage func(t *testing.T, good []byte) []byte
}

func states() []state {
	return []state{
		{"intact", true, func(_ *testing.T, good []byte) []byte { return good }},
		{"missing", false, func(*testing.T, []byte) []byte { return nil }},
		{"empty", false, func(*testing.T, []byte) []byte { return []byte{} }},
		{"truncated", false, func(_ *testing.T, good []byte) []byte { return good[:len(good)/2] }},
		{"garbage", false, func(*testing.T, []byte) []byte { return []byte("\x00\xffnot a ledger") }},
		{"too large", false, func(_ *testing.T, good []byte) []byte {
			return append(slices.Clone(good), bytes.Repeat([]byte(" "), MaxSize)...)
		}},
		{"one digit changed", false, func(t *testing.T, good []byte) []byte {
			bad := bytes.Replace(good, []byte(`"pid":4711`), []byte(`"pid":4712`), 1)
			if bytes.Equal(bad, good) {
				t.Fatalf("no process in %s", good)
			}
			return bad
		}},
		{"of another machine", false, func(t *testing.T, good []byte) []byte {
			return reseal(t, good, func(b *body) { b.Machine = other; b.Entries = nil })
		}},
		{"with an entry of another machine", false, func(t *testing.T, good []byte) []byte {
			return reseal(t, good, func(b *body) { b.Entries[0].Owner = other + "-00000000" })
		}},
		{"of a newer schema", false, func(t *testing.T, good []byte) []byte {
			return reseal(t, good, func(b *body) { b.Schema++ })
		}},
		{"of a schema with other types", false, func(*testing.T, []byte) []byte {
			return []byte(`{"schema": 7, "entries": "none", "generation": -1}`)
		}},
	}
}

func reseal(t *testing.T, data []byte, change func(*body)) []byte {
	t.Helper()
	var b body
	if err := json.Unmarshal(data, &b); err != nil {
		t.Fatal(err)
	}
	change(&b)
	out, err := b.encode()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestDamage is the whole table of what may have become of the two copies.
func TestDamage(t *testing.T) {
	process := entry(Process, "vmm")
	process.PID, process.Start, process.Boot = 4711, 99, "boot"
	want := []Entry{process, entry(Tap, "bgr0123456789ab")}
	for _, file := range states() {
		for _, section := range states() {
			t.Run(file.name+" beside "+section.name, func(t *testing.T) {
				_, dir, rec := newLedger(t, want...)
				path := filepath.Join(dir, FileName)
				good, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				badFile, badSection := file.damage(t, good), section.damage(t, good)
				if badFile == nil {
					err = os.Remove(path)
				} else {
					err = os.WriteFile(path, badFile, 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
				judge(t, dir, rec, outcome{file, section, badFile, badSection, want})
			})
		}
	}
}

type outcome struct {
	file, section       state
	badFile, badSection []byte
	want                []Entry
}

func judge(t *testing.T, dir string, rec *fakeRecord, o outcome) {
	t.Helper()
	before := fileNames(t, dir)
	// An empty section is none: JSON has no such value.
	broken := 0
	if !o.file.intact && o.badFile != nil {
		broken++
	}
	if !o.section.intact && len(o.badSection) > 0 {
		broken++
	}
	entries, damaged, readErr := Read(dir, testID, o.badSection)
	if after := fileNames(t, dir); !slices.Equal(before, after) {
		t.Fatalf("Read changed the folder: %q to %q", before, after)
	}
	if len(damaged) != broken {
		t.Errorf("Read told of %v, want %d", damaged, broken)
	}
	l, damaged, err := Open(dir, testID, Record{Section: o.badSection, Write: rec.write})
	if len(damaged) != broken {
		t.Errorf("Open told of %v, want %d", damaged, broken)
	}
	kept(t, dir, o)
	for _, d := range damaged {
		if !errors.Is(d, errDamaged) || !strings.Contains(d.Error(), dir) || !strings.Contains(d.Error(), ".damaged-1") {
			t.Errorf("message %q names no file", d)
		}
	}
	if !o.file.intact && !o.section.intact {
		if !errors.Is(err, ErrNoLedger) || !errors.Is(readErr, ErrNoLedger) {
			t.Fatalf("err = %v, %v, want ErrNoLedger", err, readErr)
		}
		return
	}
	if err != nil || readErr != nil {
		t.Fatal(err, readErr)
	}
	if !slices.Equal(l.Entries(), o.want) || !slices.Equal(entries, o.want) {
		t.Errorf("entries = %v and %v, want %v", l.Entries(), entries, o.want)
	}
	// Either copy alone would do now.
	for _, section := range []json.RawMessage{nil, rec.section(t)} {
		again, damaged, err := Read(dir, testID, section)
		if err != nil || len(damaged) > 0 || !slices.Equal(again, o.want) {
			t.Errorf("afterwards: %v, %v, %v", again, damaged, err)
		}
		if err := os.Remove(filepath.Join(dir, FileName)); err != nil && section == nil {
			t.Fatal(err)
		}
	}
}

// kept asserts that damaged bytes are still somewhere.
func kept(t *testing.T, dir string, o outcome) {
	t.Helper()
	for _, row := range []struct {
		base   string
		intact bool
		data   []byte
	}{{FileName, o.file.intact, o.badFile}, {sectionName, o.section.intact, o.badSection}} {
		got, err := os.ReadFile(filepath.Join(dir, row.base+".damaged-1"))
		damaged := !row.intact && row.data != nil && (row.base == FileName || len(row.data) > 0)
		if damaged != (err == nil) || (damaged && !bytes.Equal(got, row.data)) {
			t.Errorf("%s.damaged-1: %d bytes, %v; want it: %v", row.base, len(got), err, damaged)
		}
	}
}

func TestWhatIsNoFileIsDamaged(t *testing.T) {
	for name, plant := range map[string]func(path string) error{
		"folder":        func(path string) error { return os.Mkdir(path, 0o700) },
		"symbolic link": func(path string) error { return os.Symlink("/etc/passwd", path) },
	} {
		t.Run(name, func(t *testing.T) {
			_, dir, rec := newLedger(t, entry(Netns, "n"))
			path := filepath.Join(dir, FileName)
			if err := errors.Join(os.Remove(path), plant(path)); err != nil {
				t.Fatal(err)
			}
			l, damaged, err := Open(dir, testID, Record{rec.section(t), rec.write})
			if err != nil || len(damaged) != 1 || len(l.Entries()) != 1 {
				t.Fatalf("%v, %v, %v", l, damaged, err)
			}
			if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
				t.Errorf("%s is not a file again: %v", path, err)
			}
		})
	}
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

// TestNoPartOfACopyCounts cuts and flips an intact copy everywhere.
func TestNoPartOfACopyCounts(t *testing.T) {
	_, dir, _ := newLedger(t, entry(Tap, "bgr"), entry(Process, "vmm"))
	good, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	good = bytes.TrimSpace(good)
	want, err := decode(good, testID)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		if b, err := decode(good[:i], testID); err == nil {
			t.Fatalf("the first %d bytes were taken: %v", i, b)
		}
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			// A letter's case in a field's name is no part of what it says.
			if b, err := decode(bad, testID); err == nil && fmt.Sprint(b) != fmt.Sprint(want) {
				t.Fatalf("bit %d of byte %d changed: %v was taken", bit, i, b)
			}
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
		"a kind that is unknown":  entry("cpu", "0"),
		"no name":                 entry(Tap, ""),
		"another machine's":       {Kind: Tap, Name: "x", Owner: other + "-00000000"},
		"no owner":                {Kind: Tap, Name: "x"},
		"what is noted already":   noted,
		"a path that JSON spoils": entry(Disk, "/\xff"),
		"a path of the caller's":  {Kind: Disk, Name: "x", Owner: noted.Owner, Path: "disk.img"},
		"a name without end":      entry(Disk, "/"+strings.Repeat("x", maxString)),
	} {
		t.Run(name, func(t *testing.T) {
			l, dir, _ := newLedger(t, noted)
			if err := l.Note(e); err == nil {
				t.Error("it was noted")
			}
			if got, _, err := Read(dir, testID, nil); err != nil || !slices.Equal(got, []Entry{noted}) {
				t.Errorf("entries = %v, %v", got, err)
			}
		})
	}
	l, _, _ := newLedger(t)
	if err := l.Identify(noted); err == nil {
		t.Error("identified what was not noted")
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
		t.Errorf("%v lacks what could not be struck", got)
	}
	rec.fail = nil
	if err := l.Strike(held, next); err != nil {
		t.Fatal(err)
	}
	if got, _, err := Read(dir, testID, rec.section(t)); err != nil || len(got) > 0 {
		t.Errorf("afterwards: %v, %v", got, err)
	}
	// The other copy's turn.
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := l.Note(next); err == nil {
		t.Error("noted in a folder that is gone")
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

func TestNewReplacesWhatWasNewer(t *testing.T) {
	_, dir, rec := newLedger(t, entry(Tap, "a"), entry(Tap, "b"))
	before := rec.section(t)
	if _, err := New(dir, testID, Record{Section: before, Write: rec.write}); err != nil {
		t.Fatal(err)
	}
	if got, _, err := Read(dir, testID, before); err != nil || len(got) > 0 {
		t.Errorf("the old section beside the new file: %v, %v", got, err)
	}
	if _, err := New(dir, "../x", Record{}); err == nil {
		t.Error("a ledger of no machine")
	}
}

func TestOpenSweepsTemporaries(t *testing.T) {
	_, dir, rec := newLedger(t)
	if err := os.WriteFile(filepath.Join(dir, "."+FileName+".tmp-1"), nil, 0o600); err != nil {
		t.Fatal(err)
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
		t.Errorf("nothing was set aside as %q, %v", to, err)
	}
}

func TestManyAtOnce(t *testing.T) {
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
		t.Error("a longer one was taken")
	}
}

func FuzzDecode(f *testing.F) {
	e := entry(Process, "vmm")
	e.PID, e.Boot = 1, "b"
	good, err := (&body{Schema: Schema, Machine: testID, Generation: 1, Entries: []Entry{e}}).encode()
	if err != nil {
		f.Fatal(err)
	}
	if _, err := decode(good, testID); err != nil {
		f.Fatal(err) // the seed must be one that is taken
	}
	f.Add([]byte(good))
	f.Add([]byte(`{"schema":1,"machine":"0123456789ab","entries":[{"kind":"tap"}],"checksum":"sha256:"}`))
	f.Add([]byte(`{"schema":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := decode(data, testID)
		if err != nil {
			return
		}
		if b.Machine != testID || checkAll(b.Entries, testID) != nil {
			t.Fatalf("taken: %v", b)
		}
		again, err := b.encode()
		if err != nil {
			t.Fatal(err)
		}
		if c, err := decode(again, testID); err != nil || !slices.Equal(c.Entries, b.Entries) || c.Generation != b.Generation {
			t.Fatalf("%v became %v, %v", b, c, err)
		}
	})
}
