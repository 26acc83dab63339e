package repair_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/machine/ledger"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/repair"
	"github.com/banger-vm/banger/test/support/testmachine"
)

// A damagedMachine is a row of TestR3DamageTable.
type damagedMachine struct {
	fixture
	*testmachine.Killed
	state         record.State
	recordDamaged bool
	newer         bool // a newer banger wrote the record
}

// TestR3DamageTable checks the repair of machines in each state with each damage
// to the ledger, to the record and to both.
func TestR3DamageTable(t *testing.T) {
	for _, state := range []record.State{record.StateCreating, record.StateCreated, record.StateRunning, record.StateExited} {
		for _, which := range []string{"none", ledger.FileName, record.FileName, "both"} {
			for _, d := range damages {
				if which == "none" && d.change != nil {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s %s", state, which, d.name), func(t *testing.T) {
					f := newFixture(t)
					m := damagedMachine{fixture: f, Killed: f.kill(t, "box", state), state: state}
					for _, file := range []string{ledger.FileName, record.FileName} {
						if which == file || which == "both" {
							damage(t, filepath.Join(m.Dir, file), d.change)
						}
					}
					m.recordDamaged = which == record.FileName || which == "both"
					m.newer = m.recordDamaged && d.name == "newer"
					m.checkRepair(t)
					m.checkRemoval(t)
				})
			}
		}
	}
}

// checkRepair asserts that Reconcile repairs the machine once, and kills its
// monitor and no other process.
func (m *damagedMachine) checkRepair(t *testing.T) {
	t.Helper()
	before := readTree(t, m.root.Path())
	m.reconcile(t)
	m.checkRecord(t)
	if m.newer && readTree(t, m.root.Path()) != before {
		t.Error("the files of a newer banger were changed")
	}
	if m.Monitor != nil && m.Monitor.Alive(t) != m.newer {
		t.Errorf("the machine's process is alive: %v", !m.newer)
	}
	if !m.Unrelated.Alive(t) {
		t.Error("an unrelated process was killed")
	}
	if r := m.reconcile(t); !m.recordDamaged && len(r.Machines) > 0 {
		t.Errorf("a second repair finds %+v", r.Machines)
	}
}

// checkRecord asserts that the machine has the right record after its repair, or
// none, and that its disk and no other resource is left.
func (m *damagedMachine) checkRecord(t *testing.T) {
	t.Helper()
	records, damaged, err := m.root.List()
	if err != nil {
		t.Fatal(err)
	}
	if m.recordDamaged {
		if len(records) > 0 || !m.HasDisk() {
			t.Errorf("records %v, disk exists: %v; want only the disk", records, m.HasDisk())
		}
		for _, err := range damaged {
			if !strings.Contains(err.Error(), m.Dir) {
				t.Errorf("%v does not name the file", err)
			}
		}
		return
	}
	if m.newer || len(damaged) > 0 {
		t.Errorf("damaged: %v", damaged)
	}
	if m.state == record.StateCreating {
		if testmachine.CheckEmpty(t, m.root); len(records) > 0 {
			t.Errorf("records %v", records)
		}
		return
	}
	if len(records) != 1 || !m.HasDisk() {
		t.Fatalf("records %v, disk exists: %v", records, m.HasDisk())
	}
	rec := records[0]
	switch {
	case m.state != record.StateRunning && (rec.State != m.state || rec.Error != ""):
		t.Errorf("record %+v", rec)
	case m.state == record.StateRunning && (rec.State != record.StateExited || rec.Error != record.SupervisorKilled || rec.ExitCode != record.ExitFailed || rec.Finished.IsZero()):
		t.Errorf("record %+v", rec)
	}
	for _, e := range testmachine.LedgerEntries(t, m.root, rec.ID) {
		if e.Kind != ledger.Disk {
			t.Errorf("the ledger still lists %+v", e)
		}
	}
	if left, err := os.ReadDir(m.root.Runtime()); err != nil || len(left) > 0 {
		t.Errorf("runtime folders %v are left, %v", left, err)
	}
}

// checkRemoval asserts that the rest of the machine can be removed by its ID,
// unless a newer banger made it.
func (m *damagedMachine) checkRemoval(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(m.Dir); err != nil {
		return
	}
	err := m.store.Remove(t.Context(), m.ID)
	if m.newer {
		if !errors.Is(err, record.ErrNewer) || !m.HasDisk() {
			t.Errorf("remove: %v", err)
		}
		return
	}
	if err != nil {
		t.Error(err)
	}
	testmachine.CheckEmpty(t, m.root)
	if !m.Unrelated.Alive(t) {
		t.Error("the removal killed an unrelated process")
	}
}

// TestR3SetAsideNamesTheFile checks that the finding about a damaged record names
// the file that keeps it.
func TestR3SetAsideNamesTheFile(t *testing.T) {
	f := newFixture(t)
	m := f.kill(t, "box", record.StateExited)
	path := filepath.Join(m.Dir, record.FileName)
	damage(t, path, func([]byte) []byte { return []byte("{") })
	r := f.reconcile(t)
	if len(r.Machines) != 1 || r.Machines[0].Level != repair.LevelError || !strings.Contains(r.Machines[0].Detail, path+".damaged-1") {
		t.Errorf("findings %+v", r.Machines)
	}
	if got, err := os.ReadFile(path + ".damaged-1"); err != nil || string(got) != "{" {
		t.Errorf("set aside: %q, %v", got, err)
	}
}

// TestR3DamagedRecordStays checks that a record that cannot be read is reported and
// kept.
func TestR3DamagedRecordStays(t *testing.T) {
	for _, row := range []struct{ name, content, want string }{
		{"empty", "", "JSON"},
		{"truncated", `{"schema":1,"id":`, "JSON"},
		{"of another machine", `{"schema":1,"id":"0123456789ab","config":{"name":"box"},"state":"exited"}`, "0123456789ab"},
		{"with a disk outside", `{"schema":1,"id":"ID","config":{"name":"box"},"state":"exited","disk":{"file":"../x"}}`, "not in the machine's folder"},
		{"with a folder as its disk", `{"schema":1,"id":"ID","config":{"name":"box"},"state":"exited","disk":{"file":".."}}`, "not in the machine's folder"},
		{"in no known state", `{"schema":1,"id":"ID","config":{"name":"box"},"state":"odd"}`, "odd"},
		{"with a path as its name", `{"schema":1,"id":"ID","config":{"name":"../box"},"state":"exited"}`, "../box"},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := newFixture(t)
			rec, dir := testmachine.Lock(t, f.root, "box", nil)
			content := strings.ReplaceAll(row.content, "ID", rec.ID)
			path := filepath.Join(dir.Data, record.FileName)
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			dir.Close()
			for _, when := range []string{"before", "after"} {
				records, damaged, err := f.root.List()
				if err != nil || len(records) != 0 || len(damaged) != 1 || !strings.Contains(damaged[0].Error(), rec.ID) {
					t.Errorf("List() %s reconcile = %v, %v, %v; want one damaged", when, records, damaged, err)
				}
				if when == "after" {
					break
				}
				r := f.reconcile(t)
				if len(r.Machines) != 1 || !strings.Contains(r.Machines[0].Detail, row.want) || !strings.Contains(r.Machines[0].Detail, path) {
					t.Errorf("findings %+v, want one with %q and the file's name", r.Machines, row.want)
				}
			}
			if got, err := os.ReadFile(path + ".damaged-1"); err != nil || string(got) != content {
				t.Errorf("the damaged record is gone or changed: %q, %v", got, err)
			}
			if id, err := f.root.FindID(rec.ID); err != nil || id != rec.ID {
				t.Errorf("FindID = %q, %v", id, err)
			}
			if _, err := f.root.FindID(rec.ID[:6]); !errors.Is(err, record.ErrNotFound) {
				t.Errorf("a prefix of the ID of a damaged machine: %v", err)
			}
		})
	}
}
