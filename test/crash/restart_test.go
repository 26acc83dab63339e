//go:build e2e

package crash

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/machine/ledger/resource"
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

// TestRestartPolicies lets commands end, supervisors be killed, users stop machines, and the host be booted again,
// which is the daemon's start after a machine's end in another boot.
func TestRestartPolicies(t *testing.T) {
	w := newWorld(t)
	w.must(t, "create", "--name", "failing", "--restart", "on-failure:2", stubImage, "sh", "-c", "exit 3")
	policies := []string{"always", "unless-stopped"}
	for _, name := range policies {
		w.must(t, "create", "--name", name, "--restart", name, stubImage, "sleep", "1000")
	}
	w.must(t, append([]string{"start", "failing"}, policies...)...)
	if got := w.must(t, "wait", "failing"); got.stdout != "3\n" {
		t.Errorf("exit code: %v", got)
	}
	if got := w.must(t, "inspect", "--format", "{{.Restarts}} {{.Status}}", "failing"); !strings.HasPrefix(got.stdout, "2 Exited (3)") {
		t.Errorf("after two restarts: %v", got)
	}
	expect := func(when string, running ...string) {
		t.Helper()
		var got map[string]machineState
		if !eventually(settleLimit, func() bool {
			got = w.machines(t)
			for _, name := range policies {
				if (got[name].State == "running") != slices.Contains(running, name) {
					return false
				}
			}
			return true
		}) {
			t.Fatalf("%s: machines %v, want %v to run", when, got, running)
		}
	}
	expect("after the start", policies...)
	for pid := range w.processesOf("supervise") {
		kill(t, pid)
	}
	expect("after the supervisors were killed", policies...)
	w.must(t, append([]string{"stop", "--timeout", "5"}, policies...)...)
	killDaemon(t, w)
	expect("after a user has stopped them")
	for _, name := range policies {
		path := w.in("data", "banger", "machines", w.machines(t)[name].ID, "record.json")
		data, err := os.ReadFile(path)
		check(t, err)
		now, err := resource.BootID()
		check(t, err)
		before := bytes.Replace(data, []byte(now), []byte("another"), 1)
		if bytes.Equal(before, data) {
			t.Fatalf("the record of %s does not say in which boot it has ended", name)
		}
		check(t, os.WriteFile(path, before, 0o600))
	}
	killDaemon(t, w)
	expect("after the next boot of the host", "always")
}
