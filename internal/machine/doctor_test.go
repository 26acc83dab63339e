package machine

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/machine/ledger"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/repair"
)

func (s *Store) examineAll(t *testing.T) repair.Report {
	t.Helper()
	r, err := s.Examine(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// details are what a report says of machines, by level.
func details(r repair.Report) string {
	var b strings.Builder
	for _, f := range r.Machines {
		b.WriteString(string(f.Level) + " " + f.ID + " " + f.Name + ": " + f.Detail + "\n")
	}
	return b.String()
}

func TestExamineNothing(t *testing.T) {
	s := openStore(t)
	s.mustCreate(t, options(t, "box"))
	r := s.examineAll(t)
	if len(r.Machines) > 0 || len(r.Leftovers) > 0 || len(r.Restart) > 0 {
		t.Errorf("report %+v", r)
	}
	var names []string
	for _, c := range r.Checks {
		if c.Name == "" || c.Detail == "" || !slices.Contains([]repair.Level{repair.LevelOK, repair.LevelWarning, repair.LevelError}, c.Level) {
			t.Errorf("check %+v", c)
		}
		names = append(names, c.Name)
	}
	for _, want := range []string{"qemu", "kvm", "disks", "runtime", "space", "memory"} {
		if !slices.Contains(names, want) {
			t.Errorf("checks %q lack %s", names, want)
		}
	}
}

// TestExamineChangesNothing finds one of each, and then has them repaired.
func TestExamineChangesNothing(t *testing.T) {
	s := openStore(t)
	dead := leave(t, s, record.StateRunning)
	var all []*ward
	for name, state := range map[string]record.State{"damaged": record.StateExited, "half": record.StateCreating} {
		o := options(t, name)
		all = append(all, leaveOf(t, s, o, state))
	}
	slices.SortFunc(all, func(a, b *ward) int { return strings.Compare(a.rec.Config.Name, b.rec.Config.Name) })
	damaged, half := all[0], all[1]
	harm(t, filepath.Join(damaged.dir, record.FileName), func([]byte) []byte { return nil })
	const nobody = "ffffffffffff"
	owner, err := ledger.NewOwner(nobody, s.root.Path())
	if err != nil {
		t.Fatal(err)
	}
	left := startSleeper(t, "BANGER_MACHINE="+string(owner)+"/vmm")
	stray := s.root.RuntimeDir(nobody)
	if err := os.Mkdir(stray, 0o700); err != nil {
		t.Fatal(err)
	}
	held, err := s.root.Lock(s.mustCreate(t, options(t, "held")).ID)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()

	before := snapshot(t, s.root.Path()) + snapshot(t, s.root.Runtime())
	r := s.examineAll(t)
	if snapshot(t, s.root.Path())+snapshot(t, s.root.Runtime()) != before || !dead.vmm.lives(t) || !left.lives(t) {
		t.Error("examining changed something")
	}
	text := details(r)
	for _, want := range []string{
		"warning " + dead.rec.ID + " box: it is recorded as running, and " + record.SupervisorKilled,
		"error " + damaged.rec.ID + " : read machine record " + damaged.dir,
		"warning " + half.rec.ID + " half: it is half-made", "warning " + nobody + " : it is gone, and " + stray,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if len(r.Machines) != 4 || !r.HasFaults() {
		t.Errorf("findings\n%s", text)
	}
	if len(r.Leftovers) != 1 || r.Leftovers[0].PID != left.cmd.Process.Pid || r.Leftovers[0].Owner != owner {
		t.Errorf("leftovers %+v", r.Leftovers)
	}

	done, err := s.Fix(t.Context(), r)
	if err != nil || len(done) != 5 {
		t.Errorf("done %q, %v", done, err)
	}
	if dead.vmm.lives(t) || left.lives(t) || !dead.other.lives(t) {
		t.Error("processes were not repaired")
	}
	r = s.examineAll(t)
	// What has a user's disk and no record is the user's to decide on.
	if len(r.Leftovers) > 0 || len(r.Machines) != 2 || !r.HasFaults() || !damaged.hasDisk() {
		t.Errorf("after the repair: %v\n%s", r.Leftovers, details(r))
	}
	if err := s.Remove(t.Context(), damaged.rec.ID); err != nil {
		t.Fatal(err)
	}
	if r := s.examineAll(t); len(r.Machines) > 0 {
		t.Errorf("after the removal:\n%s", details(r))
	}
}

// TestRepairDoesWhatWasShown: a leftover that the report did not list stays.
func TestRepairDoesWhatWasShown(t *testing.T) {
	s := openStore(t)
	r := s.examineAll(t)
	owner, err := ledger.NewOwner("ffffffffffff", s.root.Path())
	if err != nil {
		t.Fatal(err)
	}
	left := startSleeper(t, "BANGER_MACHINE="+string(owner)+"/vmm")
	if done, err := s.Fix(t.Context(), r); err != nil || len(done) > 0 || !left.lives(t) {
		t.Errorf("done %q, %v", done, err)
	}
	if done, err := s.Fix(t.Context(), s.examineAll(t)); err != nil || len(done) != 1 || left.lives(t) {
		t.Errorf("done %q, %v", done, err)
	}
}

// TestLeftoverOfAMachine: what a machine that does not run has, and its ledger
// does not.
func TestLeftoverOfAMachine(t *testing.T) {
	s := openStore(t)
	w := leave(t, s, record.StateExited)
	left := startSleeper(t, "BANGER_MACHINE="+string(w.owner)+"/vmm")
	if r := s.examineAll(t); len(r.Leftovers) != 1 || r.Leftovers[0].PID != left.cmd.Process.Pid {
		t.Errorf("leftovers %+v", r.Leftovers)
	}
	held, err := s.root.Lock(w.rec.ID)
	if err != nil {
		t.Fatal(err)
	}
	if r := s.examineAll(t); len(r.Leftovers) > 0 {
		t.Errorf("leftovers of a machine that is held: %+v", r.Leftovers)
	}
	held.Close()
	harm(t, filepath.Join(w.dir, record.FileName), func(data []byte) []byte { return replaceField(data, map[string]any{"schema": 99}) })
	if r := s.examineAll(t); len(r.Leftovers) > 0 || !r.HasFaults() {
		t.Errorf("leftovers of a newer banger's machine: %+v", r.Leftovers)
	}
}

func TestReportIsJSON(t *testing.T) {
	data, err := json.Marshal(repair.Report{
		Checks: []repair.Check{check("a", repair.LevelOK, "b", "")}, Machines: []repair.Finding{{ID: "i"}}, Leftovers: []ledger.Entry{{Kind: ledger.Tap}},
	})
	want := `{"checks":[{"name":"a","level":"ok","detail":"b"}],` +
		`"machines":[{"id":"i","level":"","detail":"","fixable":false}],"leftovers":[{"kind":"tap","name":"","owner":""}]}`
	if err != nil || string(data) != want {
		t.Errorf("%s, %v; want %s", data, err, want)
	}
}

func TestCheckKVM(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "file")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{filepath.Join(dir, "none"): "is not there", plain: "does not answer"} {
		if c := checkKVM(path); c.Level != repair.LevelWarning || !strings.Contains(c.Detail, want) {
			t.Errorf("%s: %+v, want %q", path, c, want)
		}
	}
	if err := os.Chmod(plain, 0o660); err != nil { //nolint:gosec // what the test is about
		t.Fatal(err)
	}
	if got := joinGroup(plain); !strings.Contains(got, plain) && !strings.Contains(got, "usermod") {
		t.Errorf("advice %q", got)
	}
}

func TestChecksCanFail(t *testing.T) {
	s := openStore(t)
	s.Limits.DiskReserve = 1 << 62
	if c := checkFree(s.root, &s.Limits); c.Level != repair.LevelError || c.Fix == "" {
		t.Errorf("space: %+v", c)
	}
	if err := os.Chmod(s.root.Runtime(), 0o755); err != nil { //nolint:gosec // what the test is about
		t.Fatal(err)
	}
	if c := checkRuntime(s.root); c.Level != repair.LevelError {
		t.Errorf("runtime: %+v", c)
	}
	t.Setenv("PATH", t.TempDir())
	if c := checkMonitor(t.Context()); c.Level != repair.LevelError || c.Fix == "" {
		t.Errorf("qemu: %+v", c)
	}
	for version, want := range map[string]bool{"7.2.22 (Debian)": true, "10.0.0": true, "7.1.0": false, "6.9": false, "odd": false, "8": false} {
		if isRecent(version) != want {
			t.Errorf("version %q is recent: %v", version, !want)
		}
	}
}
