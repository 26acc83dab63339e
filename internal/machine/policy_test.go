package machine

import (
	"fmt"
	"slices"
	"testing"

	"github.com/banger-vm/banger/internal/machine/ledger/resource"
)

func TestReconcileRestarts(t *testing.T) {
	now, err := resource.BootID()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		policy  RestartPolicy
		state   State
		stopped bool
		boot    string
		want    bool
	}{
		{RestartAlways, StateRunning, false, "", true},
		{RestartUnlessStopped, StateRunning, false, "", true},
		{RestartAlways, StateExited, false, now, true},
		{RestartAlways, StateExited, true, now, false},
		{RestartAlways, StateExited, true, "", false},
		{RestartAlways, StateExited, true, "earlier", true},
		{RestartUnlessStopped, StateExited, false, "earlier", true},
		{RestartUnlessStopped, StateExited, true, "earlier", false},
		{RestartOnFailure, StateExited, false, "earlier", false},
		{RestartAlways, StateCreated, false, "", false},
		{RestartNo, StateRunning, false, "", false},
		{"", StateRunning, false, "", false},
	} {
		t.Run(fmt.Sprintf("%s %s %v %s", row.policy, row.state, row.stopped, row.boot), func(t *testing.T) {
			s := openStore(t)
			rec, dir := s.make(t, "box", func(r *Record) {
				r.Config.Restart.Policy, r.State, r.Stopped, r.Boot = row.policy, row.state, row.stopped, row.boot
			})
			dir.lock.Close()
			if got := slices.Contains(s.reconcileAll(t).Restart, rec.ID); got != row.want {
				t.Errorf("to be started: %v", got)
			}
		})
	}
}

// TestStopAtRest stops machines that do not run: what the policy would start
// again, or is about to after a supervisor was killed, stays stopped.
func TestStopAtRest(t *testing.T) {
	for _, state := range []State{StateRunning, StateExited, StateCreated} {
		for _, policy := range []RestartPolicy{RestartAlways, RestartUnlessStopped, RestartNo} {
			s := openStore(t)
			rec, dir := s.make(t, "box", func(r *Record) { r.Config.Restart.Policy, r.State = policy, state })
			dir.lock.Close()
			if err := s.Stop(t.Context(), rec.ID, 0); err != nil {
				t.Fatal(err)
			}
			got, err := readRecord(dir.data)
			want := policy != RestartNo && state != StateCreated
			if err != nil || got.Stopped != want || (got.Boot != "") != want {
				t.Errorf("%s, %s: %+v, %v", policy, state, got, err)
			}
			if r := s.reconcileAll(t); len(r.Restart) > 0 {
				t.Errorf("%s, %s: to be started: %v", policy, state, r.Restart)
			}
		}
	}
}
