//go:build e2e

package crash

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var (
	runs  = flag.Int("crash.runs", 200, "how often somebody is killed")
	seed  = flag.Uint64("crash.seed", uint64(time.Now().UnixNano()), "seed of the runs")
	only  = flag.Int("crash.run", -1, "number of the one run to do again")
	lanes = flag.Int("crash.lanes", 2, "how many worlds with stubs there are at a time")
)

// realRuns is how many of the runs are with real machines: one in ten.
func realRuns(runs int) int { return runs / 10 }

// A job is what one lane has to do: the runs of some numbers, in a world of its own.
type job struct {
	Seed uint64
	Real bool // machines in QEMU
	Runs []int
	All  int // how many runs there are of this sort
}

// envJob has a lane's job. Each lane is a process in namespaces of its own.
const envJob = "BANGER_CRASH_JOB"

// TestCrash kills one process of banger's in each of many lives of a machine. What is left of it is told from
// what is to be there by a listing of the host.
func TestCrash(t *testing.T) {
	needRoot(t)
	if os.Getenv(envJob) != "" {
		t.Skip("this is a lane")
	}
	newWorld(t) // the lanes copy its template
	t.Logf("seed %d: make crash RUNS=%d SEED=%d; one run again: go test -tags e2e ./test/crash -run TestCrash -crash.seed=%d -crash.run=N",
		*seed, *runs, *seed, *seed)
	var all sync.WaitGroup
	for _, j := range jobs() {
		all.Go(func() { j.start(t) })
	}
	all.Wait()
}

// jobs deals the runs out. The numbers of the real ones follow those of the others.
func jobs() []job {
	inQEMU := realRuns(*runs)
	stub := *runs - inQEMU
	out := make([]job, *lanes, *lanes+1)
	for i := range stub {
		if *only < 0 || i == *only {
			j := &out[i%*lanes]
			j.Runs = append(j.Runs, i)
		}
	}
	out = append(out, job{Real: true})
	for i := range inQEMU {
		if *only < 0 || stub+i == *only {
			out[*lanes].Runs = append(out[*lanes].Runs, stub+i)
		}
	}
	var some []job
	for _, j := range out {
		j.Seed, j.All = *seed, stub
		if len(j.Runs) > 0 {
			some = append(some, j)
		}
	}
	return some
}

// start runs the lane and passes on what it says.
func (j job) start(t *testing.T) {
	text, err := json.Marshal(j)
	if err != nil {
		t.Error(err)
		return
	}
	cmd := inNamespaces(context.Background(), []string{"-test.run=^TestLane$", "-test.v=true", "-test.timeout=2h"})
	cmd.Env = append(cmd.Env, envJob+"="+string(text))
	out, err := cmd.StdoutPipe()
	if err == nil {
		cmd.Stderr = cmd.Stdout
		err = cmd.Start()
	}
	if err != nil {
		t.Error(err)
		return
	}
	var last []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		fmt.Fprintln(os.Stdout, lines.Text())
		last = append(last, lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("a lane failed: %v", err)
	}
	if !strings.Contains(strings.Join(last, "\n"), "PASS: TestLane") && !t.Failed() {
		t.Error("a lane did nothing")
	}
}

// TestLane does the runs of one job; see TestCrash.
func TestLane(t *testing.T) {
	text := os.Getenv(envJob)
	if text == "" {
		t.Skip("TestCrash has a job for it")
	}
	var j job
	check(t, json.Unmarshal([]byte(text), &j))
	for len(j.Runs) > 0 {
		done := j.inScene(t)
		if done == 0 {
			return // the world itself failed
		}
		j.Runs = j.Runs[done:]
	}
}

// inScene does runs in one world until one fails, and returns how many it did.
func (j job) inScene(t *testing.T) (done int) {
	t.Run("world", func(t *testing.T) {
		s := j.scene(t)
		missed := 0
		for _, n := range j.Runs {
			done++
			random := rand.New(rand.NewPCG(j.Seed, uint64(n)))
			ok := t.Run(fmt.Sprintf("run-%d", n), func(t *testing.T) {
				to := j.target(s, random, n)
				hit := s.kill(t, to)
				for ; !hit && to.fraction > 0.1; hit = s.kill(t, to) {
					to.fraction /= 2 // the command had ended by then
				}
				if !hit {
					missed++
				}
			})
			if !ok {
				return
			}
		}
		if limit := 2 + len(j.Runs)/10; missed > limit {
			t.Errorf("in %d of %d runs nobody was killed", missed, len(j.Runs))
		}
	})
	return done
}

func (j job) scene(t *testing.T) *scene {
	t.Helper()
	w := newWorld(t)
	if j.Real {
		w, image := withDebian(t, w)
		return newScene(t, w, image, 1, true, "sleep", "1000")
	}
	s := newScene(t, w, stubImage, 2, false, "sleep", "1000")
	s.registry = serveImages(t, w)
	s.calm(t)
	return s
}

// target is whom run n kills. The first runs go through all steps, evenly where there are more steps than runs for
// them; the others are at random.
func (j job) target(s *scene, random *rand.Rand, n int) target {
	to := target{first: roles()[random.IntN(len(roles()))]}
	inTurn := min(s.steps[0], j.All*4/5)
	if !j.Real && n < inTurn {
		to.step = 1 + n*s.steps[0]/inTurn
		return to
	}
	lives := s.lives()
	to.life = random.IntN(len(lives))
	if steps := s.steps[to.life]; steps > 0 && random.IntN(2) == 0 {
		to.step = 1 + random.IntN(steps)
	} else {
		to.op, to.fraction = random.IntN(len(lives[to.life])), random.Float64()
	}
	return to
}

// serveImages runs a registry over the demo's images until the test ends, and returns its address.
func serveImages(t *testing.T, w world) string {
	t.Helper()
	images := os.Getenv("BANGER_TEST_IMAGES")
	if images == "" {
		images = strings.TrimSpace(tool(t, "../../scripts/demo-images"))
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "../../scripts/registry", "run", w.in("out", "registry"))
	cmd.Env = append(os.Environ(), "BANGER_REGISTRY_DATA="+images)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	stdout, err := cmd.StdoutPipe()
	check(t, errors.Join(err, cmd.Start()))
	t.Cleanup(func() {
		cancel()
		cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("read address of registry: %v", err)
	}
	return strings.TrimSpace(line)
}
