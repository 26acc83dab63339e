package daemon

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/repair"
	"github.com/banger-vm/banger/internal/machine/spec"
)

// TestWatcherRepairsMachines ends supervisors. The watcher repairs their machines, also
// after they were started again.
func TestWatcherRepairsMachines(t *testing.T) {
	f := newFakeMachines(t)
	f.add(idOne, "one", record.StateRunning)
	f.add(idTwo, "two", record.StateExited)
	f.recs[idTwo].Config.Restart.Policy = spec.RestartAlways
	f.reconcile = func(context.Context) (repair.Report, error) {
		return repair.Report{Adopted: []string{idOne}, Restart: []string{idTwo}}, nil
	}
	d := startDaemon(t, f)
	f.endSupervisor(idOne)
	awaitRepair(f, idOne)
	for range 3 {
		p, err := d.Start(t.Context(), "one", api.StartRequest{}, api.Stdio{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Wait(); err != nil {
			t.Fatal(err)
		}
		f.endSupervisor(idOne)
		awaitRepair(f, idOne)
	}
	// The start of the machine with a restart policy may still be in progress.
	for !strings.Contains(f.called(), "start two") && t.Context().Err() == nil {
		if _, err := d.Inspect(t.Context(), "two"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWatcherRestartsByPolicy kills the supervisor of a machine with a restart
// policy.
func TestWatcherRestartsByPolicy(t *testing.T) {
	f := newFakeMachines(t)
	f.add(idOne, "one", record.StateRunning)
	f.recs[idOne].Config.Restart.Policy = spec.RestartAlways
	f.reconcile = func(context.Context) (repair.Report, error) { return repair.Report{Adopted: []string{idOne}}, nil }
	startDaemon(t, f)
	for range 2 {
		f.endSupervisor(idOne)
		<-f.repaired
		for {
			if _, running := f.supervisorEnd(idOne); running {
				break
			}
			if t.Context().Err() != nil {
				t.Fatal("the machine was not started again")
			}
			runtime.Gosched()
		}
	}
	if calls := f.called(); calls != "start one, start one" {
		t.Errorf("calls: %s", calls)
	}
}

// TestStopOverridesThePolicy stops a machine whose supervisor was killed, before the
// watcher starts it again.
func TestStopOverridesThePolicy(t *testing.T) {
	f := newFakeMachines(t)
	f.add(idOne, "one", record.StateRunning)
	f.recs[idOne].Config.Restart.Policy = spec.RestartAlways
	f.reconcile = func(context.Context) (repair.Report, error) { return repair.Report{Adopted: []string{idOne}}, nil }
	entered, proceed := make(chan struct{}), make(chan struct{})
	f.stop = func(_ context.Context, id string) error {
		close(entered)
		<-proceed
		f.mu.Lock()
		defer f.mu.Unlock()
		f.recs[id].Stopped = true
		return nil
	}
	d := startDaemon(t, f)
	stopped := make(chan error, 1)
	go func() { stopped <- d.Stop(t.Context(), "one", api.StopRequest{}) }()
	<-entered
	f.endSupervisor(idOne)
	awaitRepair(f, idOne) // the machine is to be started, and the stop holds its lock
	close(proceed)
	awaitRepair(f, idOne) // examined again with the lock
	// The rename waits for the lock.
	err := errors.Join(<-stopped, d.Rename(t.Context(), "one", "other"))
	if calls := f.called(); err != nil || strings.Contains(calls, "start") {
		t.Errorf("calls: %s (%v)", calls, err)
	}
}
