package repair_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/machine/ledger"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/repair"
	"github.com/banger-vm/banger/test/support/testmachine"
)

// noMachine is the ID of a machine that does not exist.
const noMachine = "ffffffffffff"

// findings returns the findings of a report about machines, one in a line.
func findings(r repair.Report) string {
	var b strings.Builder
	for _, f := range r.Machines {
		b.WriteString(string(f.Level) + " " + f.ID + " " + f.Name + ": " + f.Detail + "\n")
	}
	return b.String()
}

// startMarked starts a process with the mark of a machine's monitor.
func startMarked(t *testing.T, owner ledger.Owner) *testmachine.Process {
	t.Helper()
	return testmachine.StartProcess(t, "BANGER_MACHINE="+string(owner)+"/vmm")
}

// TestExamineChangesNothing makes one fault of each kind. Examine reports all of
// them and changes nothing, and then Fix repairs them.
func TestExamineChangesNothing(t *testing.T) {
	f := newFixture(t)
	dead := f.kill(t, "box", record.StateRunning)
	damaged := f.kill(t, "damaged", record.StateExited)
	half := f.kill(t, "half", record.StateCreating)
	damage(t, filepath.Join(damaged.Dir, record.FileName), func([]byte) []byte { return nil })
	owner, err := ledger.NewOwner(noMachine, f.root.Path())
	if err != nil {
		t.Fatal(err)
	}
	leftover := startMarked(t, owner)
	stray := f.root.RuntimeDir(noMachine)
	if err := os.Mkdir(stray, 0o700); err != nil {
		t.Fatal(err)
	}
	f.lock(t, f.create(t, "locked"))

	before := f.files(t)
	r := f.examine(t)
	if f.files(t) != before || !dead.Monitor.Alive(t) || !leftover.Alive(t) {
		t.Error("Examine changed something")
	}
	text := findings(r)
	for _, want := range []string{
		"warning " + dead.ID + " box: it is recorded as running, and " + record.SupervisorKilled,
		"error " + damaged.ID + " : read machine record " + damaged.Dir,
		"warning " + half.ID + " half: it was not completely made or removed", "warning " + noMachine + " : it was removed, but its folder " + stray,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if len(r.Machines) != 4 || !r.HasFaults() {
		t.Errorf("findings\n%s", text)
	}
	if len(r.Leftovers) != 1 || r.Leftovers[0].PID != leftover.PID() || r.Leftovers[0].Owner != owner {
		t.Errorf("leftovers %+v", r.Leftovers)
	}

	done, err := repair.Fix(t.Context(), f.root, r)
	if err != nil || len(done) != 5 {
		t.Errorf("done %q, %v", done, err)
	}
	if dead.Monitor.Alive(t) || leftover.Alive(t) || !dead.Unrelated.Alive(t) {
		t.Error("Fix left a process alive, or killed an unrelated one")
	}
	r = f.examine(t)
	// A machine with a disk and without a record stays until the user removes it.
	if len(r.Leftovers) > 0 || len(r.Machines) != 2 || !r.HasFaults() || !damaged.HasDisk() {
		t.Errorf("after the repair: %v\n%s", r.Leftovers, findings(r))
	}
	if err := f.store.Remove(t.Context(), damaged.ID); err != nil {
		t.Fatal(err)
	}
	if r := f.examine(t); len(r.Machines) > 0 {
		t.Errorf("after the removal:\n%s", findings(r))
	}
}

// TestFixDoesNoMoreThanReported checks that Fix keeps a leftover that the report
// does not list.
func TestFixDoesNoMoreThanReported(t *testing.T) {
	f := newFixture(t)
	r := f.examine(t)
	owner, err := ledger.NewOwner(noMachine, f.root.Path())
	if err != nil {
		t.Fatal(err)
	}
	leftover := startMarked(t, owner)
	if done, err := repair.Fix(t.Context(), f.root, r); err != nil || len(done) > 0 || !leftover.Alive(t) {
		t.Errorf("done %q, %v", done, err)
	}
	if done, err := repair.Fix(t.Context(), f.root, f.examine(t)); err != nil || len(done) != 1 || leftover.Alive(t) {
		t.Errorf("done %q, %v", done, err)
	}
}

// TestLeftoverOfAMachine checks which processes with a machine's mark are leftovers,
// if the machine's ledger does not list them.
func TestLeftoverOfAMachine(t *testing.T) {
	f := newFixture(t)
	m := f.kill(t, "box", record.StateExited)
	leftover := startMarked(t, m.Owner)
	if r := f.examine(t); len(r.Leftovers) != 1 || r.Leftovers[0].PID != leftover.PID() {
		t.Errorf("leftovers %+v", r.Leftovers)
	}
	dir := f.lock(t, m.ID)
	if r := f.examine(t); len(r.Leftovers) > 0 {
		t.Errorf("leftovers of a locked machine: %+v", r.Leftovers)
	}
	dir.Close()
	damage(t, filepath.Join(m.Dir, record.FileName), func(data []byte) []byte { return replaceFields(data, map[string]any{"schema": 99}) })
	if r := f.examine(t); len(r.Leftovers) > 0 || !r.HasFaults() {
		t.Errorf("leftovers of a newer banger's machine: %+v", r.Leftovers)
	}
}

func TestReportIsJSON(t *testing.T) {
	data, err := json.Marshal(repair.Report{
		Checks:    []repair.Check{{Name: "a", Level: repair.LevelOK, Detail: "b"}},
		Machines:  []repair.Finding{{ID: "i"}},
		Leftovers: []ledger.Entry{{Kind: ledger.Tap}},
	})
	want := `{"checks":[{"name":"a","level":"ok","detail":"b"}],` +
		`"machines":[{"id":"i","level":"","detail":"","fixable":false}],"leftovers":[{"kind":"tap","name":"","owner":""}]}`
	if err != nil || string(data) != want {
		t.Errorf("%s, %v; want %s", data, err, want)
	}
}
