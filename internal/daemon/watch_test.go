package daemon

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/machine"
)

// TestSupervisorThatDies has the machines settled whose supervisors end, also
// when they are started again meanwhile.
func TestSupervisorThatDies(t *testing.T) {
	f := newFake(t)
	f.add(idOne, "one", machine.StateRunning)
	f.add(idTwo, "two", machine.StateExited)
	f.recs[idTwo].Config.Restart.Policy = machine.RestartAlways
	f.reconcile = func(context.Context) (machine.Report, error) {
		return machine.Report{Adopted: []string{idOne}, Restart: []string{idTwo}}, nil
	}
	d := begin(t, f)
	f.end(idOne)
	f.awaitSettled(idOne)
	for range 3 {
		p, err := d.Start(t.Context(), "one", api.StartRequest{}, api.Stdio{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Wait(); err != nil {
			t.Fatal(err)
		}
		f.end(idOne)
		f.awaitSettled(idOne)
	}
	// The machine that is to run may still be coming up.
	for !strings.Contains(f.called(), "start two") && t.Context().Err() == nil {
		if _, err := d.Inspect(t.Context(), "two"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPolicyOutlivesTheSupervisor boots a machine again whose supervisor was
// killed, where its policy says so.
func TestPolicyOutlivesTheSupervisor(t *testing.T) {
	f := newFake(t)
	f.add(idOne, "one", machine.StateRunning)
	f.recs[idOne].Config.Restart.Policy = machine.RestartAlways
	f.reconcile = func(context.Context) (machine.Report, error) { return machine.Report{Adopted: []string{idOne}}, nil }
	begin(t, f)
	for range 2 {
		f.end(idOne)
		<-f.settled
		for {
			if _, running := f.ending(idOne); running {
				break
			}
			if t.Context().Err() != nil {
				t.Fatal("it was not started again")
			}
			runtime.Gosched()
		}
	}
	if calls := f.called(); calls != "start one, start one" {
		t.Errorf("calls: %s", calls)
	}
}

// TestStopOutrunsThePolicy stops a machine whose supervisor was killed, before
// it is started again.
func TestStopOutrunsThePolicy(t *testing.T) {
	f := newFake(t)
	f.add(idOne, "one", machine.StateRunning)
	f.recs[idOne].Config.Restart.Policy = machine.RestartAlways
	f.reconcile = func(context.Context) (machine.Report, error) { return machine.Report{Adopted: []string{idOne}}, nil }
	entered, proceed := make(chan struct{}), make(chan struct{})
	f.stop = func(_ context.Context, id string) error {
		close(entered)
		<-proceed
		f.mu.Lock()
		defer f.mu.Unlock()
		f.recs[id].Stopped = true
		return nil
	}
	d := begin(t, f)
	stopped := make(chan error, 1)
	go func() { stopped <- d.Stop(t.Context(), "one", api.StopRequest{}) }()
	<-entered
	f.end(idOne)
	f.awaitSettled(idOne) // it is to be started, and the stop has the machine
	close(proceed)
	f.awaitSettled(idOne)                                                // looked at again
	err := errors.Join(<-stopped, d.Rename(t.Context(), "one", "other")) // which waits its turn
	if calls := f.called(); err != nil || strings.Contains(calls, "start") {
		t.Errorf("calls: %s (%v)", calls, err)
	}
}
