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

// TestR4DaemonKilledUnderMachines kills the daemon while machines run. Each machine must answer the next command, within
// the limit.
func TestR4DaemonKilledUnderMachines(t *testing.T) {
	for _, row := range []struct {
		name     string
		real     bool
		machines int
		limit    time.Duration
	}{
		{"10 stubs", false, 10, 2 * time.Second},
		{"10 real machines", true, 10, 4 * time.Second}, // two processors emulate ten machines
	} {
		t.Run(row.name, func(t *testing.T) {
			box, image := newSandbox(t), stubImage
			if row.real {
				box, image = withDebian(t, box)
			}
			names := make([]string, row.machines)
			for i := range names {
				names[i] = fmt.Sprintf("m%d", i)
				box.must(t, "create", "--name", names[i], image, "sleep", "1000")
				box.must(t, "start", names[i])
			}
			before := box.processesOf("supervise")
			if len(before) != row.machines {
				t.Fatalf("%d supervisors for %d machines", len(before), row.machines)
			}
			killDaemon(t, box)
			start := time.Now()
			var all sync.WaitGroup
			for _, name := range names {
				all.Go(func() {
					if got := box.run(t, "exec", name, "echo", "alive"); got.code != 0 || got.stdout != "alive\n" {
						t.Errorf("%v", got)
					}
				})
			}
			all.Wait()
			took := time.Since(start)
			t.Logf("%d machines answered %v after the daemon was killed", row.machines, took)
			if took > row.limit {
				t.Errorf("it took more than %v", row.limit)
			}
			for pid := range before {
				if _, ok := box.processesOf("supervise")[pid]; !ok {
					t.Errorf("supervisor %d is gone", pid)
				}
			}
			for _, m := range box.machines(t) {
				if m.State != "running" {
					t.Errorf("machine %+v", m)
				}
			}
		})
	}
}

// processesOf returns the processes of the sandbox that run the given command of banger, by number.
func (box sandbox) processesOf(command string) map[int]process {
	out := map[int]process{}
	for _, p := range processes() {
		if p.is(command) && (p.inSandbox(box.dir)) {
			out[p.pid] = p
		}
	}
	return out
}

// killDaemon kills the daemon of the sandbox and waits for its end. It fails unless there is exactly one.
func killDaemon(t *testing.T, box sandbox) {
	t.Helper()
	daemons := box.processesOf("daemon")
	if len(daemons) != 1 {
		t.Fatalf("%d daemons", len(daemons))
	}
	for pid := range daemons {
		kill(t, pid)
	}
}

// kill kills a process, which need not be a child, and waits for its end.
func kill(t *testing.T, pid int) {
	t.Helper()
	check(t, syscall.Kill(pid, syscall.SIGKILL))
	if !eventually(recoveryLimit, func() bool { _, ok := readProcess(pid); return !ok }) {
		t.Fatalf("process %d does not end", pid)
	}
}

// withDebian returns the sandbox with real machines in QEMU, and the name of an image for them.
func withDebian(t *testing.T, box sandbox) (sandbox, string) {
	t.Helper()
	box = box.withQEMU()
	registry := serveImages(t, box)
	box.must(t, "image", "pull", "--quiet", "--plain-http", "--name", "debian:12", registry+"/demo/debian:12")
	return box, "debian:12"
}

// TestRestartPolicies checks each policy after the end of the command, a kill of the supervisor, a stop by the user, and
// a boot of the host. It simulates the boot by another boot ID in the record and a restart of the daemon.
func TestRestartPolicies(t *testing.T) {
	box := newSandbox(t)
	box.must(t, "create", "--name", "failing", "--restart", "on-failure:2", stubImage, "sh", "-c", "exit 3")
	policies := []string{"always", "unless-stopped"}
	for _, name := range policies {
		box.must(t, "create", "--name", name, "--restart", name, stubImage, "sleep", "1000")
	}
	box.must(t, append([]string{"start", "failing"}, policies...)...)
	if got := box.must(t, "wait", "failing"); got.stdout != "3\n" {
		t.Errorf("exit code: %v", got)
	}
	if got := box.must(t, "inspect", "--format", "{{.Restarts}} {{.Status}}", "failing"); !strings.HasPrefix(got.stdout, "2 Exited (3)") {
		t.Errorf("after two restarts: %v", got)
	}
	expect := func(when string, running ...string) {
		t.Helper()
		var got map[string]machineState
		if !eventually(recoveryLimit, func() bool {
			got = box.machines(t)
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
	for pid := range box.processesOf("supervise") {
		kill(t, pid)
	}
	expect("after the supervisors were killed", policies...)
	box.must(t, append([]string{"stop", "--timeout", "5"}, policies...)...)
	killDaemon(t, box)
	expect("after a user has stopped them")
	for _, name := range policies {
		path := box.in("data", "banger", "machines", box.machines(t)[name].ID, "record.json")
		data, err := os.ReadFile(path)
		check(t, err)
		now, err := resource.BootID()
		check(t, err)
		before := bytes.Replace(data, []byte(now), []byte("another"), 1)
		if bytes.Equal(before, data) {
			t.Fatalf("the record of %s has no ID of the boot in which it ended", name)
		}
		check(t, os.WriteFile(path, before, 0o600))
	}
	killDaemon(t, box)
	expect("after the next boot of the host", "always")
}
