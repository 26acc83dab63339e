package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/machine/ledger"
	"github.com/banger-vm/banger/internal/machine/ledger/resource"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/repair"
	"github.com/banger-vm/banger/internal/machine/spec"
)

// damages are what may have become of a file.
var damages = []struct {
	name string
	do   func(data []byte) []byte // nil: the file goes
}{
	{"missing", nil},
	{"empty", func([]byte) []byte { return []byte{} }},
	{"truncated", func(data []byte) []byte { return data[:len(data)/2] }},
	{"garbage", func([]byte) []byte { return []byte("\x00\xff{]") }},
	{"another machine's", func(data []byte) []byte {
		return replaceField(data, map[string]any{"id": "ffffffffffff", "machine": "ffffffffffff"})
	}},
	{"newer", func(data []byte) []byte { return replaceField(data, map[string]any{"schema": 99, "state": 7}) }},
}

// replaceField changes the fields that are there.
func replaceField(data []byte, fields map[string]any) []byte {
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		panic(err)
	}
	for name, value := range fields {
		if _, ok := m[name]; ok {
			m[name] = value
		}
	}
	data, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return data
}

func harm(t *testing.T, path string, do func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil && do == nil {
		err = os.Remove(path)
	} else if err == nil {
		err = os.WriteFile(path, do(data), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestR3DamageTable holds what becomes of a machine against its state and
// what is wrong with its files.
func TestR3DamageTable(t *testing.T) {
	o := options(t, "box")
	for _, state := range []record.State{record.StateCreating, record.StateCreated, record.StateRunning, record.StateExited} {
		for _, which := range []string{"none", ledger.FileName, record.FileName, "both"} {
			for _, damage := range damages {
				if which == "none" && damage.do != nil {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s %s", state, which, damage.name), func(t *testing.T) {
					w := leaveOf(t, openStore(t), o, state)
					for _, file := range []string{ledger.FileName, record.FileName} {
						if which == file || which == "both" {
							harm(t, filepath.Join(w.dir, file), damage.do)
						}
					}
					recordHarmed := which == record.FileName || which == "both"
					newer := recordHarmed && damage.name == "newer"
					before := snapshot(t, w.s.root.Path())
					w.s.reconcileAll(t)
					w.check(t, state, recordHarmed, newer)
					if newer && snapshot(t, w.s.root.Path()) != before {
						t.Error("what a newer banger made was changed")
					}
					if w.vmm != nil && w.vmm.lives(t) != newer {
						t.Errorf("the machine's process lives: %v", !newer)
					}
					if !w.other.lives(t) {
						t.Error("another's process was killed")
					}
					// What was set right is right.
					if r := w.s.reconcileAll(t); !recordHarmed && len(r.Machines) > 0 {
						t.Errorf("the second time: %+v", r.Machines)
					}
					w.removed(t, newer)
				})
			}
		}
	}
}

// check asserts the outcome of a row.
func (w *ward) check(t *testing.T, state record.State, recordHarmed, newer bool) {
	t.Helper()
	records, damaged, err := w.s.Machines()
	if err != nil {
		t.Fatal(err)
	}
	if recordHarmed {
		if len(records) > 0 || !w.hasDisk() {
			t.Errorf("records %v, disk there: %v; want the disk alone", records, w.hasDisk())
		}
		for _, err := range damaged {
			if !strings.Contains(err.Error(), w.dir) {
				t.Errorf("%v does not name the file", err)
			}
		}
		return
	}
	if newer || len(damaged) > 0 {
		t.Errorf("damaged: %v", damaged)
	}
	if state == record.StateCreating {
		if w.s.empty(t); len(records) > 0 {
			t.Errorf("records %v", records)
		}
		return
	}
	if len(records) != 1 || !w.hasDisk() {
		t.Fatalf("records %v, disk there: %v", records, w.hasDisk())
	}
	rec := records[0]
	switch {
	case state != record.StateRunning && (rec.State != state || rec.Error != ""):
		t.Errorf("record %+v", rec)
	case state == record.StateRunning && (rec.State != record.StateExited || rec.Error != record.SupervisorKilled || rec.ExitCode != record.ExitFailed || rec.Finished.IsZero()):
		t.Errorf("record %+v", rec)
	}
	for _, e := range w.s.noted(t, rec.ID) {
		if e.Kind != ledger.Disk {
			t.Errorf("still noted: %+v", e)
		}
	}
	if got := names(t, w.s.root.Runtime()); len(got) > 0 {
		t.Errorf("runtime folders %q are left", got)
	}
}

// removed asserts that the machine, whatever is left of it, can be removed by
// its ID, unless it is a newer banger's.
func (w *ward) removed(t *testing.T, newer bool) {
	t.Helper()
	if _, err := os.Stat(w.dir); err != nil {
		return
	}
	err := w.s.Remove(t.Context(), w.rec.ID)
	if newer {
		if !errors.Is(err, record.ErrNewer) || !w.hasDisk() {
			t.Errorf("remove: %v", err)
		}
		return
	}
	if err != nil {
		t.Error(err)
	}
	w.s.empty(t)
	if !w.other.lives(t) {
		t.Error("another's process was killed by the removal")
	}
}

// snapshot is what the files under root say.
func snapshot(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == ".lock" {
			fmt.Fprintln(&b, path)
			return err
		}
		info, err := d.Info()
		if err == nil && info.Size() > 4<<20 { // a disk
			fmt.Fprintln(&b, path, info.Size(), info.ModTime())
			return nil
		}
		data, readErr := os.ReadFile(path)
		fmt.Fprintf(&b, "%s %q\n", path, data)
		return errors.Join(err, readErr)
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestR3SetAsideNamesTheFile: the message of a damaged record leads to the file.
func TestR3SetAsideNamesTheFile(t *testing.T) {
	w := leave(t, openStore(t), record.StateExited)
	path := filepath.Join(w.dir, record.FileName)
	harm(t, path, func([]byte) []byte { return []byte("{") })
	r := w.s.reconcileAll(t)
	if len(r.Machines) != 1 || r.Machines[0].Level != repair.LevelError || !strings.Contains(r.Machines[0].Detail, path+".damaged-1") {
		t.Errorf("findings %+v", r.Machines)
	}
	if got, err := os.ReadFile(path + ".damaged-1"); err != nil || string(got) != "{" {
		t.Errorf("set aside: %q, %v", got, err)
	}
}

func TestR3RemoveFinishesWhatReconcileFinds(t *testing.T) {
	s := openStore(t)
	w := leave(t, s, record.StateRunning)
	held, err := s.root.Lock(w.rec.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), w.rec.ID); !errors.Is(err, record.ErrRunning) {
		t.Errorf("remove what is held: %v", err)
	}
	held.Close()
	if err := s.Remove(t.Context(), w.rec.ID); err != nil {
		t.Fatal(err)
	}
	if s.empty(t); w.vmm.lives(t) || !w.other.lives(t) {
		t.Errorf("processes: the machine's lives: %v, another's: %v", w.vmm.lives(t), w.other.lives(t))
	}
}

// TestR4Adopt: what is held is not touched, and it is looked who holds it.
func TestR4Adopt(t *testing.T) {
	for _, ofItsSupervisor := range []bool{true, false} {
		t.Run(fmt.Sprint(ofItsSupervisor), func(t *testing.T) {
			s := openStore(t)
			d, err := s.enter(t.Context(), &record.Record{ID: "0123456789ab", Config: spec.Config{Name: "box"}, State: record.StateRunning})
			if err != nil {
				t.Fatal(err)
			}
			defer d.dir.Close()
			owner, err := ledger.NewOwner(d.rec.ID, s.root.Path())
			if err != nil {
				t.Fatal(err)
			}
			var p *sleeper
			err = resource.Maker{Ledger: d.ledger, Owner: owner}.Process(t.Context(), record.SupervisorEntry, func(mark string) (int, error) {
				p = startSleeper(t, mark)
				return p.cmd.Process.Pid, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if !ofItsSupervisor {
				p.cmd.Process.Kill()
				<-p.ended //nolint:errcheck // it was killed
			}
			before := snapshot(t, s.root.Path())
			r := s.reconcileAll(t)
			if !slices.Equal(r.Adopted, []string{d.rec.ID}) || (len(r.Machines) == 0) != ofItsSupervisor {
				t.Errorf("report %+v", r)
			}
			if snapshot(t, s.root.Path()) != before || p.lives(t) != ofItsSupervisor {
				t.Error("a machine that is held was touched")
			}
		})
	}
}

// TestR4AdoptWithoutARecord: a machine that is held keeps its files whatever
// they are like, and a record that is lost is told of.
func TestR4AdoptWithoutARecord(t *testing.T) {
	for _, damage := range damages {
		t.Run(damage.name, func(t *testing.T) {
			s := openStore(t)
			w := leave(t, s, record.StateRunning)
			held, err := s.root.Lock(w.rec.ID)
			if err != nil {
				t.Fatal(err)
			}
			defer held.Close()
			harm(t, filepath.Join(w.dir, record.FileName), damage.do)
			before := snapshot(t, s.root.Path())
			r := s.reconcileAll(t)
			if len(r.Machines) != 1 || r.Machines[0].Fixable || !strings.Contains(r.Machines[0].Detail, w.dir) {
				t.Errorf("findings %+v", r.Machines)
			}
			if snapshot(t, s.root.Path()) != before || !w.vmm.lives(t) {
				t.Error("a machine that is held was touched")
			}
		})
	}
}

func TestReconcileSaysWhyItEnded(t *testing.T) {
	s := openStore(t)
	w := leave(t, s, record.StateRunning)
	dir, err := s.root.Lock(w.rec.ID)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := record.Read(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	l, _, err := ledger.Open(w.dir, rec.ID, dir.LedgerRecord(rec))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range l.Entries() {
		if e.Kind == ledger.Process {
			e.Boot = "00000000-0000-0000-0000-000000000000"
			if err := l.Identify(e); err != nil {
				t.Fatal(err)
			}
		}
	}
	j, err := record.OpenJournal(t.Context(), dir) // as a start does
	if err == nil {
		err = markLost(j)
	}
	if err != nil || j.Record().Error != record.HostBooted {
		t.Errorf("a start finds %+v, %v", j.Record(), err)
	}
	dir.Close()
	s.reconcileAll(t)
	if rec, err := s.Find("box"); err != nil || rec.State != record.StateExited || rec.Error != record.HostBooted {
		t.Errorf("record %+v, %v", rec, err)
	}
	// It has the mark, and yet is none of a machine of an earlier boot.
	if !w.vmm.lives(t) {
		t.Error("a process of this boot was killed for one of another")
	}
}

func TestReconcileSweepsTemporaries(t *testing.T) {
	s := openStore(t)
	w := leave(t, s, record.StateExited)
	left := filepath.Join(w.dir, "."+record.FileName+".tmp-1")
	half := s.root.DataDir("0123456789ab") // of a writer killed before its first rename
	if err := errors.Join(os.WriteFile(left, nil, 0o600), os.Mkdir(half, 0o700),
		os.WriteFile(filepath.Join(half, "."+record.FileName+".tmp-1"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	s.reconcileAll(t)
	for _, path := range []string{left, half} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	}
}

func TestReconcileSkipsAFIFO(t *testing.T) {
	s := openStore(t)
	w := leave(t, s, record.StateExited)
	path := filepath.Join(w.dir, record.FileName)
	if err := errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := s.Reconcile(ctx); err != nil || !w.hasDisk() {
		t.Errorf("reconcile: %v, disk there: %v", err, w.hasDisk())
	}
}

func TestSettle(t *testing.T) {
	s := openStore(t)
	w := leave(t, s, record.StateRunning)
	for _, id := range []string{w.rec.ID, w.rec.ID, "ffffffffffff"} {
		if _, err := s.RepairMachine(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if rec, err := record.Read(w.dir); err != nil || rec.State != record.StateExited {
		t.Errorf("record %+v, %v", rec, err)
	}
}

// needTaps gives the test a network of its own.
func needTaps(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("the test needs root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	runtime.LockOSThread() // its thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

func hasLink(t *testing.T, name string) bool {
	t.Helper()
	err := exec.CommandContext(t.Context(), "ip", "link", "show", "dev", name).Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	}
	return err == nil
}

// TestR3TapOfAnother: a tap that has the name of the machine's and is not the
// machine's stays; the machine's own goes, with and without a ledger.
func TestR3TapOfAnother(t *testing.T) {
	for _, row := range []struct{ ours, ledger bool }{{true, true}, {true, false}, {false, true}, {false, false}} {
		t.Run(fmt.Sprintf("ours %v, ledger %v", row.ours, row.ledger), func(t *testing.T) {
			needTaps(t)
			s := openStore(t)
			w := leave(t, s, record.StateRunning)
			dir, err := s.root.Lock(w.rec.ID)
			if err != nil {
				t.Fatal(err)
			}
			rec, err := record.Read(w.dir)
			if err != nil {
				t.Fatal(err)
			}
			l, _, err := ledger.Open(w.dir, rec.ID, dir.LedgerRecord(rec))
			if err != nil {
				t.Fatal(err)
			}
			tap, name, err := resource.Maker{Ledger: l, Owner: w.owner}.Tap(t.Context(), resource.TapOptions{Persist: row.ours})
			if err != nil {
				t.Fatal(err)
			}
			tap.Close() // which ends the one that does not persist
			dir.Close()
			if !row.ours {
				out, err := exec.CommandContext(t.Context(), "ip", "tuntap", "add", "dev", name, "mode", "tap").CombinedOutput()
				if err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			if !row.ledger {
				harm(t, filepath.Join(w.dir, ledger.FileName), nil)
				harm(t, filepath.Join(w.dir, record.FileName), nil)
			}
			s.reconcileAll(t)
			if hasLink(t, name) == row.ours {
				t.Errorf("the tap is there: %v", row.ours)
			}
			if w.vmm.lives(t) {
				t.Error("the machine's process lives")
			}
		})
	}
}
