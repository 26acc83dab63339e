//go:build e2e

package crash

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/base/poll"
)

// An op is a command of a sequence.
type op struct {
	name string
	args []string
}

// A scenario is a sandbox with bystanders: machines that run all the time and that no run may disturb. A run executes
// one of its sequences of commands on a further machine, the subject, and kills a process.
type scenario struct {
	sandbox
	image      string
	command    []string // main command of the machines
	registry   string   // host:port, "" for none
	short      bool     // sequences have one start, because a boot takes seconds
	watcher    *watcher
	bystanders []machineState
	base       []item                   // the host while only the bystanders run
	steps      []int                    // number of steps of each sequence, without a kill
	took       map[string]time.Duration // duration of each op, without a kill
}

// subject is the name of the machine that the sequences create and remove.
const subject = "subject"

// newScenario starts the bystanders and measures the sequences.
func newScenario(t *testing.T, box sandbox, image string, bystanders int, short bool, command ...string) *scenario {
	t.Helper()
	s := &scenario{sandbox: box, image: image, command: command, short: short, watcher: box.watch(t), took: map[string]time.Duration{}}
	for i := range bystanders {
		name := fmt.Sprintf("bystander%d", i)
		box.must(t, append([]string{"create", "--name", name, image}, command...)...)
		box.must(t, "start", name)
	}
	for _, m := range box.machines(t) {
		s.bystanders = append(s.bystanders, m)
	}
	s.measure(t)
	return s
}

// measure executes each sequence twice without a kill, since the first execution may fill caches. It records the base,
// the steps and the durations.
func (s *scenario) measure(t *testing.T) {
	t.Helper()
	for range 2 {
		s.steps = nil
		if !eventually(recoveryLimit, func() bool { s.base = s.listing(t); return s.bystandersAlone() }) {
			t.Fatalf("a removed machine has left something: %v", s.base)
		}
		for _, ops := range s.sequences() {
			s.steps = append(s.steps, s.countSteps(t, ops))
		}
	}
	if s.steps[0] == 0 {
		t.Fatal("no step was seen in a whole sequence")
	}
	t.Logf("the sequences have %d steps; the commands take %v", s.steps, s.took)
	var faults []string // the supervisor of the last machine may end after its client
	if !eventually(recoveryLimit, func() bool { faults = s.faults(t, nil); return len(faults) == 0 }) {
		t.Fatalf("no process was killed:\n%s", strings.Join(faults, "\n"))
	}
}

// bystandersAlone reports whether every machine that has an item in the base is a bystander. The supervisor of a machine
// that was removed may end after its client.
func (s *scenario) bystandersAlone() bool {
	return !slices.ContainsFunc(s.base, func(i item) bool {
		return i.machine != "" && !slices.ContainsFunc(s.bystanders, func(m machineState) bool { return m.ID == i.machine })
	})
}

// countSteps executes ops without a kill, returns the number of steps and records the durations.
func (s *scenario) countSteps(t *testing.T, ops []op) (steps int) {
	t.Helper()
	killer := s.newKiller(0, cli)
	s.watcher.onStep(killer.step)
	defer s.watcher.onStep(nil)
	for _, o := range ops {
		got := s.do(t, func(pid int) { killer.beginCommand(o.name, pid) }, o.args...)
		if got.code != 0 {
			t.Fatalf("no process was killed: %v", got)
		}
		s.took[o.name] = got.took
	}
	return len(killer.steps)
}

func (s *scenario) newKiller(at int, first role) *killer {
	killer := &killer{sandbox: s.sandbox, at: at, first: first}
	for _, m := range s.bystanders {
		killer.spared = append(killer.spared, m.ID)
	}
	return killer
}

// sequences returns the sequences of commands, each from the creation of the subject to its removal. Runs kill at each
// step of the first one. If there is a registry, the last one pulls and removes an image.
func (s *scenario) sequences() [][]op {
	making := append([]string{"--name", subject, s.image}, s.command...)
	long := []op{
		{"create", append([]string{"create"}, making...)},
		{"start", []string{"start", subject}},
		{"exec", []string{"exec", subject, "true"}},
		{"stop", []string{"stop", "--timeout", "5", subject}},
		{startAgain, []string{"start", subject}},
		{"rm", []string{"rm", "-f", subject}},
	}
	brief := []op{{runToEnd, []string{"run", "--rm", "--name", subject, s.image, "sleep", "0.2"}}}
	if s.short {
		return [][]op{slices.Delete(long, 4, 5), brief}
	}
	sequences := [][]op{long, brief, {
		{"run", append([]string{"run", "-d"}, making...)},
		{"restart", []string{"restart", "--time", "5", subject}},
		{"kill", []string{"kill", subject}},
		{"rm of the dead", []string{"rm", subject}},
	}}
	if s.registry != "" {
		sequences = append(sequences, s.imageOps())
	}
	return sequences
}

// Names of ops: the start of a machine that has run before, and a run that waits for the end of the machine.
const (
	startAgain = "start again"
	runToEnd   = "run --rm"
)

// imageOps returns the ops that pull an image and remove it.
func (s *scenario) imageOps() []op {
	const name = "pulled:1"
	return []op{
		{"pull", []string{"image", "pull", "--quiet", "--plain-http", "--name", name, s.registry + "/demo/torture:1"}},
		{"image rm", []string{"image", "rm", name}},
	}
}

// A target is the process that a run kills, and the time of the kill: a step, or a fraction of the duration of an op.
type target struct {
	first    role
	sequence int
	step     int     // of the sequence, from 1; 0: during op
	op       int     // of the sequence
	fraction float64 // of the duration of op
}

// kill executes a sequence, kills the target and checks the result. hit reports whether a process was killed.
func (s *scenario) kill(t *testing.T, to target) (hit bool) {
	t.Helper()
	ops := s.sequences()[to.sequence]
	killer := s.newKiller(to.step, to.first)
	s.watcher.onStep(killer.step)
	var history []outcome
	for i, o := range ops {
		ended := make(chan struct{})
		watching := make(chan struct{})
		got := s.do(t, func(pid int) {
			killer.beginCommand(o.name, pid)
			go func() {
				defer close(watching)
				if to.step == 0 && i == to.op {
					killer.killAfter(time.Duration(to.fraction*float64(s.took[o.name])), ended)
				}
			}()
		}, o.args...)
		close(ended)
		<-watching
		history = append(history, got)
		_, _, hit = killer.result()
		if got.hung {
			t.Errorf("the command did not end: %v", got)
		}
		if hit {
			break
		}
		if got.code != 0 {
			t.Errorf("no process was killed yet: %v", got)
			break
		}
		s.took[o.name] = min(s.took[o.name], got.took)
	}
	s.watcher.onStep(nil)
	victim, when, _ := killer.result()
	if hit {
		t.Logf("killed the %s at %s", victim, when)
	}
	s.checkResult(t, ops[:len(history)], history, victim)
	if t.Failed() {
		for _, got := range history {
			t.Logf("%v", got)
		}
		s.logDetails(t)
	}
	return hit
}

// recoveryLimit bounds the time that banger takes to finish its work after a process was killed.
const recoveryLimit = 60 * time.Second

// checkResult checks the sandbox after the last of ops was disturbed by a kill, and removes the subject.
func (s *scenario) checkResult(t *testing.T, ops []op, history []outcome, victim role) {
	t.Helper()
	if name := ops[len(ops)-1].name; name == "pull" || name == "image rm" {
		// The next pull sweeps the leftovers of a killed one.
		for _, o := range s.imageOps() {
			s.must(t, o.args...)
		}
	}
	want := expected(ops, history, victim)
	var faults []string
	eventually(recoveryLimit, func() bool {
		faults = s.faults(t, &want)
		return len(faults) == 0
	})
	for _, fault := range faults {
		t.Error(fault)
	}
	s.expectBystanders(t)
	if m, ok := s.machines(t)[subject]; ok {
		if m.State == "running" && ops[0].name != runToEnd {
			s.expectAnswer(t)
		}
		if got := s.run(t, "rm", "-f", subject); got.code != 0 {
			if _, ok := s.machines(t)[subject]; ok { // else it has ended and removed itself
				t.Errorf("%v", got)
			}
		}
	}
	var d difference
	eventually(recoveryLimit, func() bool {
		d = compare(s.base, s.listing(t))
		return d.empty()
	})
	if !d.empty() {
		t.Errorf("after rm the host differs from before:\n%v", d)
	}
}

// expectAnswer checks that the subject, which runs, answers. If the CLI of a stop was killed, the subject may be
// about to end: then it must end.
func (s *scenario) expectAnswer(t *testing.T) {
	t.Helper()
	got := s.run(t, "exec", subject, "true")
	if got.code == 0 {
		return
	}
	ends := false
	eventually(recoveryLimit, func() bool {
		m, ok := s.machines(t)[subject]
		ends = !ok || m.State != "running"
		return ends
	})
	if !ends {
		t.Errorf("the machine runs and does not answer: %v", got)
	}
}

// An expectation is a condition on the subject. Only the fields that are true are checked.
type expectation struct {
	exists, runs, ended bool
}

// expected returns the expectation after the given outcomes of ops. victim was killed during the last one.
func expected(ops []op, history []outcome, victim role) expectation {
	var p expectation
	last := len(ops) - 1
	for i, o := range ops {
		answered := history[i].code == 0
		switch o.name {
		case "create":
			p.exists = answered
		case "run":
			p.exists, p.runs = answered, answered
		case "start", startAgain, "restart":
			p.runs = answered
		case "stop", "kill":
			p.runs = false
		case "rm", "rm of the dead":
			p.exists, p.runs = false, false
		}
		if i == last && (victim == supervisor || victim == vmm) {
			// A restart has two supervisors and two monitors; the victim was of the first or of the second pair.
			p.ended = p.runs && o.name != "restart"
			p.runs = false
		}
	}
	return p
}

// faults returns a line for each fault of the sandbox: by doctor, by the expectation, and by the host.
func (s *scenario) faults(t *testing.T, want *expectation) []string {
	t.Helper()
	var faults []string
	complain := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	if got := s.run(t, "doctor"); got.code != 0 {
		complain("doctor finds a fault: %v", got)
	}
	machines := s.machines(t)
	if want != nil {
		m, ok := machines[subject]
		switch {
		case want.exists && !ok:
			complain("the machine is lost")
		case want.runs && m.State != "running":
			complain("the machine was started, and its state is %q", m.State)
		case want.ended && m.State == "running":
			complain("the machine has lost its supervisor or VMM, and its state is %q", m.State)
		}
	}
	faults = append(faults, s.hostFaults(t, machines)...)
	return append(faults, recordFaults(s.sandbox)...)
}

// hostFaults compares the host with the base. In addition to it there may be the items of the subject if it runs, and
// its data folder if it does not run.
func (s *scenario) hostFaults(t *testing.T, machines map[string]machineState) []string {
	t.Helper()
	d := compare(s.base, s.listing(t))
	var faults []string
	kinds := map[string]int{}
	m := machines[subject]
	for _, i := range d.lost {
		faults = append(faults, fmt.Sprintf("lost: %v", i))
	}
	for _, i := range d.left {
		switch {
		case m.ID != "" && i.machine == m.ID && (m.State == "running" || strings.HasPrefix(i.what, "data/banger/machines/"+m.ID)):
			kinds[i.kind]++
		default:
			faults = append(faults, fmt.Sprintf("left (machine %q has state %q): %v", m.ID, m.State, i))
		}
	}
	if m.State == "running" && (kinds["link"] != 1 || kinds["loop"] != 1 || kinds["process"] < 2) {
		faults = append(faults, fmt.Sprintf("a running machine holds %v, want a link, a loop device and two processes", kinds))
	}
	return faults
}

// recordFaults returns a line for each record that is damaged, without the use of banger's code.
func recordFaults(box sandbox) []string {
	var faults []string
	paths, _ := filepath.Glob(box.in("data", "banger", "machines", "*", "*"))
	for _, path := range paths {
		if strings.Contains(filepath.Base(path), "damaged") {
			faults = append(faults, "set aside: "+path)
		}
		if filepath.Base(path) != "record.json" {
			continue
		}
		data, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			continue
		}
		var record struct{ ID, State string }
		if err == nil {
			err = json.Unmarshal(data, &record)
		}
		if id := filepath.Base(filepath.Dir(path)); err != nil || record.ID != id || record.State == "" {
			faults = append(faults, fmt.Sprintf("record %s: %+v, %v", path, record, err))
		}
	}
	return faults
}

// expectBystanders checks that the bystanders are unchanged and answer.
func (s *scenario) expectBystanders(t *testing.T) {
	t.Helper()
	machines := s.machines(t)
	for _, b := range s.bystanders {
		if m := machines[b.Name]; m != b {
			t.Errorf("bystander %+v has changed to %+v", b, m)
		}
		if got := s.run(t, "exec", b.Name, "true"); got.code != 0 {
			t.Errorf("a bystander does not answer: %v", got)
		}
	}
}

// logDetails logs the ends of the daemon's and the machines' logs.
func (s *scenario) logDetails(t *testing.T) {
	t.Helper()
	logs, _ := filepath.Glob(s.in("run", "banger", "*", "daemon.log"))
	more, _ := filepath.Glob(s.in("data", "banger", "machines", "*", "*.log"))
	for _, path := range append(logs, more...) {
		const tail = 4 << 10
		if data, err := os.ReadFile(path); err == nil {
			t.Logf("%s:\n%s", path, data[max(0, len(data)-tail):])
		}
	}
}

// eventually waits until the condition holds and reports whether it does within the limit.
func eventually(limit time.Duration, holds func() bool) bool {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return poll.Until(ctx, 20*time.Millisecond, func() (bool, error) { return holds(), nil }) == nil
}
