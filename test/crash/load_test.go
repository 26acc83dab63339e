//go:build e2e

package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// The size of TestConcurrentClients.
const (
	clients          = 10
	lifecyclesOfEach = 5
	sharedMachine    = "shared" // a machine that all clients start and stop
	raceDetected     = "DATA RACE"
)

// TestConcurrentClients creates, uses and removes 50 machines from 10 concurrent clients, with the race detector in all
// of banger's processes. All clients also start and stop one shared machine.
func TestConcurrentClients(t *testing.T) {
	box := newSandbox(t)
	box.banger = suite.raceBanger
	box.must(t, "create", "--name", sharedMachine, stubImage, "sleep", "1000")
	box.must(t, "start", sharedMachine)
	box.must(t, "stop", "--timeout", "5", sharedMachine)
	before := box.listing(t)
	var all sync.WaitGroup
	for client := range clients {
		all.Go(func() {
			for life := range lifecyclesOfEach {
				name := fmt.Sprintf("client%d-%d", client, life)
				box.runLifecycle(t, name)
				box.startAndStopShared(t)
			}
		})
	}
	all.Wait()
	if got := box.run(t, "doctor"); got.code != 0 {
		t.Errorf("%v", got)
	}
	box.must(t, "stop", "--timeout", "5", sharedMachine)
	var d difference
	if !eventually(recoveryLimit, func() bool { d = compare(before, box.listing(t)); return d.empty() }) {
		t.Errorf("after all machines are removed the host differs:\n%v", d)
	}
	box.expectNoRace(t)
}

// runLifecycle creates, uses and removes a machine.
func (box sandbox) runLifecycle(t *testing.T, name string) {
	t.Helper()
	for _, args := range [][]string{
		{"create", "--name", name, stubImage, "sleep", "1000"},
		{"start", name}, {"exec", name, "true"}, {"stop", "--timeout", "10", name}, {"rm", name},
	} {
		if got := box.run(t, args...); got.code != 0 {
			t.Errorf("%v", got)
			return
		}
	}
}

// startAndStopShared starts and stops the shared machine. The command may fail if another client was faster, and must
// report that in one line.
func (box sandbox) startAndStopShared(t *testing.T) {
	t.Helper()
	for _, args := range [][]string{{"start", sharedMachine}, {"stop", "--timeout", "10", sharedMachine}} {
		got := box.run(t, args...)
		lines := strings.Count(got.stderr, "banger: ")
		if got.code != 0 && (lines != 1 || strings.Contains(got.stderr, "panic") || strings.Contains(got.stderr, "EOF")) {
			t.Errorf("no clear answer: %v", got)
		}
	}
}

// expectNoRace checks that the race detector has reported nothing, to its log files or to a log of banger.
func (box sandbox) expectNoRace(t *testing.T) {
	t.Helper()
	paths, err := filepath.Glob(box.in("out", "race.*"))
	check(t, err)
	for _, pattern := range []string{"run/banger/*/daemon.log", "data/banger/machines/*/*.log"} {
		more, err := filepath.Glob(box.in(pattern))
		check(t, err)
		paths = append(paths, more...)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		check(t, err)
		if strings.Contains(string(data), raceDetected) {
			t.Errorf("%s:\n%s", path, data)
		}
	}
}
