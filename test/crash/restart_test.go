//go:build e2e

package crash

import (
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestR4DaemonKilledUnderMachines kills the daemon under machines that run. All must answer the first command that
// they get after it, and soon.
func TestR4DaemonKilledUnderMachines(t *testing.T) {
	for _, row := range []struct {
		name     string
		real     bool
		machines int
		limit    time.Duration
	}{
		{"10 stubs", false, 10, 2 * time.Second},
		{"10 real machines", true, 10, 4 * time.Second}, // two processors emulate ten
	} {
		t.Run(row.name, func(t *testing.T) {
			w, image := newWorld(t), stubImage
			if row.real {
				w, image = withDebian(t, w)
			}
			names := make([]string, row.machines)
			for i := range names {
				names[i] = fmt.Sprintf("m%d", i)
				w.must(t, "create", "--name", names[i], image, "sleep", "1000")
				w.must(t, "start", names[i])
			}
			before := w.processesOf("supervise")
			if len(before) != row.machines {
				t.Fatalf("%d supervisors for %d machines", len(before), row.machines)
			}
			killDaemon(t, w)
			start := time.Now()
			var all sync.WaitGroup
			for _, name := range names {
				all.Go(func() {
					if got := w.run(t, "exec", name, "echo", "alive"); got.code != 0 || got.stdout != "alive\n" {
						t.Errorf("%v", got)
					}
				})
			}
			all.Wait()
			took := time.Since(start)
			t.Logf("%d machines have answered %v after the daemon was killed", row.machines, took)
			if took > row.limit {
				t.Errorf("it took more than %v", row.limit)
			}
			for pid := range before {
				if _, ok := w.processesOf("supervise")[pid]; !ok {
					t.Errorf("supervisor %d is gone", pid)
				}
			}
			for _, m := range w.machines(t) {
				if m.State != "running" {
					t.Errorf("machine %+v", m)
				}
			}
		})
	}
}

// processesOf are those of the world that run banger's command.
func (w world) processesOf(command string) map[int]process {
	out := map[int]process{}
	for _, p := range processes() {
		if p.is(command) && (p.inWorld(w.dir)) {
			out[p.pid] = p
		}
	}
	return out
}

// killDaemon kills the world's daemon, of which there must be one, and waits for its end.
func killDaemon(t *testing.T, w world) {
	t.Helper()
	daemons := w.processesOf("daemon")
	if len(daemons) != 1 {
		t.Fatalf("%d daemons", len(daemons))
	}
	for pid := range daemons {
		kill(t, pid)
	}
}

// kill ends a process, which need not be a child.
func kill(t *testing.T, pid int) {
	t.Helper()
	check(t, syscall.Kill(pid, syscall.SIGKILL))
	if !eventually(settleLimit, func() bool { _, ok := readProcess(pid); return !ok }) {
		t.Fatalf("process %d does not end", pid)
	}
}

// withDebian is the world with real machines, and the name of an image for them.
func withDebian(t *testing.T, w world) (world, string) {
	t.Helper()
	w = w.withQEMU()
	registry := serveImages(t, w)
	w.must(t, "image", "pull", "--quiet", "--plain-http", "--name", "debian:12", registry+"/demo/debian:12")
	return w, "debian:12"
}
