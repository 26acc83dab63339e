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

// What TestConcurrentClients does at a time.
const (
	clients      = 10
	livesOfEach  = 5
	sharedByAll  = "shared" // a machine that all clients want to be theirs
	raceDetected = "DATA RACE"
)

// TestConcurrentClients has 10 clients live 50 lives of machines at once, with the race detector in all of
// banger's processes, and quarrel over one machine more.
func TestConcurrentClients(t *testing.T) {
	w := newWorld(t)
	w.banger = suite.raceBanger
	w.must(t, "create", "--name", sharedByAll, stubImage, "sleep", "1000")
	w.must(t, "start", sharedByAll)
	w.must(t, "stop", "--timeout", "5", sharedByAll)
	before := w.listing(t)
	var all sync.WaitGroup
	for client := range clients {
		all.Go(func() {
			for life := range livesOfEach {
				name := fmt.Sprintf("client%d-%d", client, life)
				w.live(t, name)
				w.quarrel(t)
			}
		})
	}
	all.Wait()
	if got := w.run(t, "doctor"); got.code != 0 {
		t.Errorf("%v", got)
	}
	w.must(t, "stop", "--timeout", "5", sharedByAll)
	var d difference
	if !eventually(settleLimit, func() bool { d = compare(before, w.listing(t)); return d.empty() }) {
		t.Errorf("after all lives the host differs:\n%v", d)
	}
	w.expectNoRace(t)
}

func (w world) live(t *testing.T, name string) {
	t.Helper()
	for _, args := range [][]string{
		{"create", "--name", name, stubImage, "sleep", "1000"},
		{"start", name}, {"exec", name, "true"}, {"stop", "--timeout", "10", name}, {"rm", name},
	} {
		if got := w.run(t, args...); got.code != 0 {
			t.Errorf("%v", got)
			return
		}
	}
}

// quarrel starts or stops the machine that others start and stop too. Whoever is late is told so in one line.
func (w world) quarrel(t *testing.T) {
	t.Helper()
	for _, args := range [][]string{{"start", sharedByAll}, {"stop", "--timeout", "10", sharedByAll}} {
		got := w.run(t, args...)
		lines := strings.Count(got.stderr, "banger: ")
		if got.code != 0 && (lines != 1 || strings.Contains(got.stderr, "panic") || strings.Contains(got.stderr, "EOF")) {
			t.Errorf("no clear answer: %v", got)
		}
	}
}

// expectNoRace looks for reports where the detector was told to write them, and where it writes them otherwise.
func (w world) expectNoRace(t *testing.T) {
	t.Helper()
	paths, err := filepath.Glob(w.in("out", "race.*"))
	check(t, err)
	for _, pattern := range []string{"run/banger/*/daemon.log", "data/banger/machines/*/*.log"} {
		more, err := filepath.Glob(w.in(pattern))
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
