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
	runs    = flag.Int("crash.runs", 200, "number of runs, each of which kills a process")
	seed    = flag.Uint64("crash.seed", uint64(time.Now().UnixNano()), "seed of the runs")
	only    = flag.Int("crash.run", -1, "number of a single run to repeat")
	workers = flag.Int("crash.workers", 2, "number of sandboxes with stubs at a time")
)

// realRuns returns the number of runs with real machines: one in ten.
func realRuns(runs int) int { return runs / 10 }

// A job is the work of one worker: runs with the given numbers, in a sandbox of its own.
type job struct {
	Seed uint64
	Real bool // machines in QEMU
	Runs []int
	All  int // number of all runs with stubs
}

// envJob is the variable that has a worker's job. Each worker is a process in namespaces of its own.
const envJob = "BANGER_CRASH_JOB"

// TestCrash runs sequences of commands from the creation of a machine to its removal. It kills one process of banger in
// each sequence, and compares a listing of the host with the expected state.
func TestCrash(t *testing.T) {
	needRoot(t)
	if os.Getenv(envJob) != "" {
		t.Skip("this process is a worker")
	}
	newSandbox(t) // makes the template that the workers copy
	t.Logf("seed %d: make crash RUNS=%d SEED=%d; one run again: go test -tags e2e ./test/crash -run TestCrash -crash.seed=%d -crash.run=N",
		*seed, *runs, *seed, *seed)
	var all sync.WaitGroup
	for _, j := range jobs() {
		all.Go(func() { j.start(t) })
	}
	all.Wait()
}

// jobs distributes the runs. Runs with stubs have the first numbers, runs with real machines the numbers after them.
func jobs() []job {
	inQEMU := realRuns(*runs)
	stub := *runs - inQEMU
	out := make([]job, *workers, *workers+1)
	for i := range stub {
		if *only < 0 || i == *only {
			j := &out[i%*workers]
			j.Runs = append(j.Runs, i)
		}
	}
	out = append(out, job{Real: true})
	for i := range inQEMU {
		if *only < 0 || stub+i == *only {
			out[*workers].Runs = append(out[*workers].Runs, stub+i)
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

// start runs the worker and copies its output.
func (j job) start(t *testing.T) {
	text, err := json.Marshal(j)
	if err != nil {
		t.Error(err)
		return
	}
	cmd := inNamespaces(context.Background(), []string{"-test.run=^TestWorker$", "-test.v=true", "-test.timeout=2h"})
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
		t.Errorf("a worker failed: %v", err)
	}
	if !strings.Contains(strings.Join(last, "\n"), "PASS: TestWorker") && !t.Failed() {
		t.Error("a worker did nothing")
	}
}

// TestWorker does the runs of one job of TestCrash.
func TestWorker(t *testing.T) {
	text := os.Getenv(envJob)
	if text == "" {
		t.Skip("TestCrash starts it with a job")
	}
	var j job
	check(t, json.Unmarshal([]byte(text), &j))
	for len(j.Runs) > 0 {
		done := j.runInScenario(t)
		if done == 0 {
			return // the sandbox could not be made
		}
		j.Runs = j.Runs[done:]
	}
}

// runInScenario does runs in one sandbox until one fails, and returns the number of runs.
func (j job) runInScenario(t *testing.T) (done int) {
	t.Run("sandbox", func(t *testing.T) {
		s := j.scenario(t)
		missed := 0
		for _, n := range j.Runs {
			done++
			random := rand.New(rand.NewPCG(j.Seed, uint64(n)))
			ok := t.Run(fmt.Sprintf("run-%d", n), func(t *testing.T) {
				to := j.target(s, random, n)
				hit := s.kill(t, to)
				for ; !hit && to.fraction > 0.1; hit = s.kill(t, to) {
					to.fraction /= 2 // the command had ended before
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
			t.Errorf("%d of %d runs killed no process", missed, len(j.Runs))
		}
	})
	return done
}

func (j job) scenario(t *testing.T) *scenario {
	t.Helper()
	box := newSandbox(t)
	if j.Real {
		box, image := withDebian(t, box)
		return newScenario(t, box, image, 1, true, "sleep", "1000")
	}
	s := newScenario(t, box, stubImage, 2, false, "sleep", "1000")
	s.registry = serveImages(t, box)
	s.measure(t)
	return s
}

// target returns the target of run n. The first runs kill at each step in turn, or at evenly chosen steps if there are
// more steps than runs. The others kill at random.
func (j job) target(s *scenario, random *rand.Rand, n int) target {
	to := target{first: roles()[random.IntN(len(roles()))]}
	inTurn := min(s.steps[0], j.All*4/5)
	if !j.Real && n < inTurn {
		to.step = 1 + n*s.steps[0]/inTurn
		return to
	}
	sequences := s.sequences()
	to.sequence = random.IntN(len(sequences))
	if steps := s.steps[to.sequence]; steps > 0 && random.IntN(2) == 0 {
		to.step = 1 + random.IntN(steps)
	} else {
		to.op, to.fraction = random.IntN(len(sequences[to.sequence])), random.Float64()
	}
	return to
}

// serveImages serves the demo images from a registry until the test ends, and returns its address.
func serveImages(t *testing.T, box sandbox) string {
	t.Helper()
	images := os.Getenv("BANGER_TEST_IMAGES")
	if images == "" {
		images = strings.TrimSpace(tool(t, "../../scripts/demo-images"))
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "../../scripts/registry", "run", box.in("out", "registry"))
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
