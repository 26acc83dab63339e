package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// A copyState is one way in which a crash or a fault may leave a copy. damage
// returns the bytes of that copy, or nil if it is missing.
type copyState struct {
	name   string
	intact bool
	damage func(t *testing.T, good []byte) []byte
}

func copyStates() []copyState {
	return []copyState{
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

// reseal changes the body of a copy and returns it with a checksum that matches.
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

// TestDamage opens and reads ledgers with each combination of states of the two
// copies.
func TestDamage(t *testing.T) {
	process := entry(Process, "vmm")
	process.PID, process.Start, process.Boot = 4711, 99, "boot"
	want := []Entry{process, entry(Tap, "bgr0123456789ab")}
	for _, file := range copyStates() {
		for _, section := range copyStates() {
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
				checkDamaged(t, dir, rec, damagedLedger{file, section, badFile, badSection, want})
			})
		}
	}
}

// A damagedLedger has the states of the two copies, their bytes, and the entries
// that were noted before the damage.
type damagedLedger struct {
	file, section       copyState
	badFile, badSection []byte
	want                []Entry
}

// checkDamaged asserts the results of Read and Open, and that Open repairs the
// ledger.
func checkDamaged(t *testing.T, dir string, rec *fakeRecord, o damagedLedger) {
	t.Helper()
	before := fileNames(t, dir)
	// An empty section counts as missing, not as damaged: JSON has no empty value.
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
		t.Errorf("Read reported %v, want %d", damaged, broken)
	}
	l, damaged, err := Open(dir, testID, Record{Section: o.badSection, Write: rec.write})
	if len(damaged) != broken {
		t.Errorf("Open reported %v, want %d", damaged, broken)
	}
	checkKept(t, dir, o)
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
	// Each copy alone is enough now.
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

// checkKept asserts that Open has kept the bytes of each damaged copy.
func checkKept(t *testing.T, dir string, o damagedLedger) {
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

func TestCopyThatIsNotAFileIsDamaged(t *testing.T) {
	for name, plant := range map[string]func(path string) error{
		"folder":        func(path string) error { return os.Mkdir(path, 0o700) },
		"symbolic link": func(path string) error { return os.Symlink("/etc/passwd", path) },
	} {
		t.Run(name, func(t *testing.T) {
			_, dir, rec := newLedger(t, entry(Table, "t"))
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

// TestChangedCopyIsRefused truncates an intact copy at each byte, and flips each
// of its bits.
func TestChangedCopyIsRefused(t *testing.T) {
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
			t.Fatalf("the first %d bytes were accepted: %v", i, b)
		}
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			// A change of case in a field name is accepted: encoding/json ignores case.
			if b, err := decode(bad, testID); err == nil && fmt.Sprint(b) != fmt.Sprint(want) {
				t.Fatalf("bit %d of byte %d changed: %v was accepted", bit, i, b)
			}
		}
	}
}

// TestSectionIsKeptWholeOrNotAtAll limits the size of files to half of the
// section, as if the disk were full.
func TestSectionIsKeptWholeOrNotAtAll(t *testing.T) {
	dir := t.TempDir()
	section := bytes.Repeat([]byte("x"), 4096)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	short := syscall.Rlimit{Cur: uint64(len(section) / 2), Max: limit.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &short); err != nil {
		t.Fatal(err)
	}
	_, keepErr := keepSection(dir, section)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(keepErr, syscall.EFBIG) {
		t.Errorf("keep: %v, want EFBIG", keepErr)
	}
	if left := fileNames(t, dir); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	to, err := keepSection(dir, section)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, section) {
		t.Errorf("kept %d bytes, %v", len(got), err)
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
		f.Fatal(err) // a seed that decode refuses would test little
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
			t.Fatalf("accepted: %v", b)
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
