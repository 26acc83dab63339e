//go:build e2e

package crash

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// An op is one command of a machine's life.
type op struct {
	name string
	args []string
}

// A scene is a world with machines that run all the time and are to notice nothing, and what is on its host when
// nothing else is there.
type scene struct {
	world
	image      string
	command    []string // what machines run
	registry   string   // host:port, "" for none
	short      bool     // lives have one start, for a boot takes seconds
	watcher    *watcher
	bystanders []machineState
	base       []item
	steps      []int                    // of each life when nobody is killed
	took       map[string]time.Duration // its commands
}

// subject is the name of the machine whose life it is.
const subject = "subject"

// newScene starts the bystanders and takes the measure of a calm life.
func newScene(t *testing.T, w world, image string, bystanders int, short bool, command ...string) *scene {
	t.Helper()
	s := &scene{world: w, image: image, command: command, short: short, watcher: w.watch(t), took: map[string]time.Duration{}}
	for i := range bystanders {
		name := fmt.Sprintf("bystander%d", i)
		w.must(t, append([]string{"create", "--name", name, image}, command...)...)
		w.must(t, "start", name)
	}
	for _, m := range w.machines(t) {
		s.bystanders = append(s.bystanders, m)
	}
	s.calm(t)
	return s
}

// calm lives a life twice: the first may fill caches.
func (s *scene) calm(t *testing.T) {
	t.Helper()
	for range 2 {
		s.steps = nil
		if !eventually(settleLimit, func() bool { s.base = s.listing(t); return s.bystandersAlone() }) {
			t.Fatalf("a machine that is gone has left something: %v", s.base)
		}
		for _, ops := range s.lives() {
			s.steps = append(s.steps, s.liveCalmly(t, ops))
		}
	}
	if s.steps[0] == 0 {
		t.Fatal("no step was seen in a whole life")
	}
	t.Logf("lives have %d steps, and take %v", s.steps, s.took)
	if faults := s.settled(t, nil); len(faults) > 0 {
		t.Fatalf("nobody was killed:\n%s", strings.Join(faults, "\n"))
	}
}

// bystandersAlone reports whether no other machine has anything in the base: the supervisor of one that has ended
// may outlive the answer to its client.
func (s *scene) bystandersAlone() bool {
	return !slices.ContainsFunc(s.base, func(i item) bool {
		return i.machine != "" && !slices.ContainsFunc(s.bystanders, func(m machineState) bool { return m.ID == i.machine })
	})
}

// liveCalmly counts the steps of a life in which nobody is killed.
func (s *scene) liveCalmly(t *testing.T, ops []op) (steps int) {
	t.Helper()
	shot := s.newShot(0, cli)
	s.watcher.look(shot.step)
	defer s.watcher.look(nil)
	for _, o := range ops {
		got := s.do(t, func(pid int) { shot.begin(o.name, pid) }, o.args...)
		if got.code != 0 {
			t.Fatalf("nobody was killed: %v", got)
		}
		s.took[o.name] = got.took
	}
	return len(shot.steps)
}

func (s *scene) newShot(at int, first role) *shot {
	shot := &shot{world: s.world, at: at, first: first}
	for _, m := range s.bystanders {
		shot.spared = append(shot.spared, m.ID)
	}
	return shot
}

// lives are those that a machine may have: the commands from its making to its end. The first has all steps that are
// to be gone through in turn. The last is an image's, where there is a registry.
func (s *scene) lives() [][]op {
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
	lives := [][]op{long, brief, {
		{"run", append([]string{"run", "-d"}, making...)},
		{"restart", []string{"restart", "--time", "5", subject}},
		{"kill", []string{"kill", subject}},
		{"rm of the dead", []string{"rm", subject}},
	}}
	if s.registry != "" {
		lives = append(lives, s.imageOps())
	}
	return lives
}

// Names of commands: the start of a machine that has run, and one that takes a machine to its end.
const (
	startAgain = "start again"
	runToEnd   = "run --rm"
)

// imageOps pull an image and remove it.
func (s *scene) imageOps() []op {
	const name = "pulled:1"
	return []op{
		{"pull", []string{"image", "pull", "--quiet", "--plain-http", "--name", name, s.registry + "/demo/torture:1"}},
		{"image rm", []string{"image", "rm", name}},
	}
}

// A target is whom a run kills, and when.
type target struct {
	first    role
	life     int     // of lives
	step     int     // from 1; 0: at a moment
	op       int     // of the life
	fraction float64 // of the time that it takes
}

// kill lives a life in which somebody is killed, and judges what is left.
func (s *scene) kill(t *testing.T, to target) (hit bool) {
	t.Helper()
	ops := s.lives()[to.life]
	shot := s.newShot(to.step, to.first)
	s.watcher.look(shot.step)
	var history []outcome
	for i, o := range ops {
		ended := make(chan struct{})
		watching := make(chan struct{})
		got := s.do(t, func(pid int) {
			shot.begin(o.name, pid)
			go func() {
				defer close(watching)
				if to.step == 0 && i == to.op {
					shot.moment(time.Duration(to.fraction*float64(s.took[o.name])), ended)
				}
			}()
		}, o.args...)
		close(ended)
		<-watching
		history = append(history, got)
		_, _, hit = shot.result()
		if got.hung {
			t.Errorf("it did not end: %v", got)
		}
		if hit {
			break
		}
		if got.code != 0 {
			t.Errorf("nobody was killed yet: %v", got)
			break
		}
		s.took[o.name] = min(s.took[o.name], got.took)
	}
	s.watcher.look(nil)
	victim, when, _ := shot.result()
	if hit {
		t.Logf("killed the %s at %s", victim, when)
	}
	s.judge(t, ops[:len(history)], history, victim)
	if t.Failed() {
		for _, got := range history {
			t.Logf("%v", got)
		}
		s.explain(t)
	}
	return hit
}

// settleLimit is how long banger may take to be done with what it was at when somebody was killed.
const settleLimit = 60 * time.Second

// judge wants of banger, after the last of the commands was disturbed, what it has promised.
func (s *scene) judge(t *testing.T, ops []op, history []outcome, victim role) {
	t.Helper()
	if name := ops[len(ops)-1].name; name == "pull" || name == "image rm" {
		// What a pull has left is swept by the next.
		for _, o := range s.imageOps() {
			s.must(t, o.args...)
		}
	}
	want := promised(ops, history, victim)
	var faults []string
	eventually(settleLimit, func() bool {
		faults = s.settled(t, &want)
		return len(faults) == 0
	})
	for _, fault := range faults {
		t.Error(fault)
	}
	s.expectBystanders(t)
	if m, ok := s.machines(t)[subject]; ok {
		if m.State == "running" && ops[0].name != runToEnd {
			if got := s.run(t, "exec", subject, "true"); got.code != 0 {
				t.Errorf("it runs and does not answer: %v", got)
			}
		}
		if got := s.run(t, "rm", "-f", subject); got.code != 0 {
			if _, ok := s.machines(t)[subject]; ok { // else it has ended meanwhile, and gone by itself
				t.Errorf("%v", got)
			}
		}
	}
	var d difference
	eventually(settleLimit, func() bool {
		d = compare(s.base, s.listing(t))
		return d.empty()
	})
	if !d.empty() {
		t.Errorf("after rm the host differs from before:\n%v", d)
	}
}

// A promise is what must be true of the subject.
type promise struct {
	exists, runs, ended bool // each is of use where it is true
}

// promised follows from the commands that were answered and from who was killed in the last.
func promised(ops []op, history []outcome, victim role) promise {
	var p promise
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
			// A restart has two of each, and it was the first or the second.
			p.ended = p.runs && o.name != "restart"
			p.runs = false
		}
	}
	return p
}

// settled returns what speaks against banger's being done, and done well.
func (s *scene) settled(t *testing.T, want *promise) []string {
	t.Helper()
	var faults []string
	complain := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	if got := s.run(t, "doctor"); got.code != 0 {
		complain("doctor finds something: %v", got)
	}
	machines := s.machines(t)
	if want != nil {
		m, ok := machines[subject]
		switch {
		case want.exists && !ok:
			complain("the machine is lost")
		case want.runs && m.State != "running":
			complain("the machine was started and is %q", m.State)
		case want.ended && m.State == "running":
			complain("the machine has lost its supervisor or VMM and is %q", m.State)
		}
	}
	faults = append(faults, s.unexplained(t, machines)...)
	return append(faults, unreadable(s.world)...)
}

// unexplained compares the host with what there is to be of the machines: all that a running one has, and the
// data folder of one that does not run.
func (s *scene) unexplained(t *testing.T, machines map[string]machineState) []string {
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
			faults = append(faults, fmt.Sprintf("left (machine %q is %q): %v", m.ID, m.State, i))
		}
	}
	if m.State == "running" && (kinds["link"] != 1 || kinds["loop"] != 1 || kinds["process"] < 2) {
		faults = append(faults, fmt.Sprintf("a running machine holds %v", kinds))
	}
	return faults
}

// unreadable names records that are not what they are to be, without banger's judgement.
func unreadable(w world) []string {
	var faults []string
	paths, _ := filepath.Glob(w.in("data", "banger", "machines", "*", "*"))
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

// expectBystanders wants the machines that nobody touched to run and answer.
func (s *scene) expectBystanders(t *testing.T) {
	t.Helper()
	machines := s.machines(t)
	for _, b := range s.bystanders {
		if m := machines[b.Name]; m != b {
			t.Errorf("bystander %+v has become %+v", b, m)
		}
		if got := s.run(t, "exec", b.Name, "true"); got.code != 0 {
			t.Errorf("a bystander does not answer: %v", got)
		}
	}
}

// explain logs what helps to see why.
func (s *scene) explain(t *testing.T) {
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

// eventually waits until the condition holds, looking now and then, and reports whether it does.
func eventually(limit time.Duration, holds func() bool) bool {
	deadline, tick := time.After(limit), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			return false
		case <-tick.C:
		}
	}
	return true
}
