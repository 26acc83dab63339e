package machine

import (
	"fmt"
	"slices"
	"testing"

	"github.com/banger-vm/banger/internal/machine/ledger/resource"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/spec"
)

func TestReconcileRestarts(t *testing.T) {
	now, err := resource.BootID()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		policy  spec.RestartPolicy
		state   record.State
		stopped bool
		boot    string
		want    bool
	}{
		{spec.RestartAlways, record.StateRunning, false, "", true},
		{spec.RestartUnlessStopped, record.StateRunning, false, "", true},
		{spec.RestartAlways, record.StateExited, false, now, true},
		{spec.RestartAlways, record.StateExited, true, now, false},
		{spec.RestartAlways, record.StateExited, true, "", false},
		{spec.RestartAlways, record.StateExited, true, "earlier", true},
		{spec.RestartUnlessStopped, record.StateExited, false, "earlier", true},
		{spec.RestartUnlessStopped, record.StateExited, true, "earlier", false},
		{spec.RestartOnFailure, record.StateExited, false, "earlier", false},
		{spec.RestartAlways, record.StateCreated, false, "", false},
		{spec.RestartNo, record.StateRunning, false, "", false},
		{"", record.StateRunning, false, "", false},
	} {
		t.Run(fmt.Sprintf("%s %s %v %s", row.policy, row.state, row.stopped, row.boot), func(t *testing.T) {
			s := openStore(t)
			rec, dir := s.make(t, "box", func(r *record.Record) {
				r.Config.Restart.Policy, r.State, r.Stopped, r.Boot = row.policy, row.state, row.stopped, row.boot
			})
			dir.Close()
			if got := slices.Contains(s.reconcileAll(t).Restart, rec.ID); got != row.want {
				t.Errorf("to be started: %v", got)
			}
		})
	}
}

// TestStopAtRest stops machines that do not run: what the policy would start
// again, or is about to after a supervisor was killed, stays stopped.
func TestStopAtRest(t *testing.T) {
	for _, state := range []record.State{record.StateRunning, record.StateExited, record.StateCreated} {
		for _, policy := range []spec.RestartPolicy{spec.RestartAlways, spec.RestartUnlessStopped, spec.RestartNo} {
			s := openStore(t)
			rec, dir := s.make(t, "box", func(r *record.Record) { r.Config.Restart.Policy, r.State = policy, state })
			dir.Close()
			if err := s.Stop(t.Context(), rec.ID, 0); err != nil {
				t.Fatal(err)
			}
			got, err := record.Read(dir.Data)
			want := policy != spec.RestartNo && state != record.StateCreated
			if err != nil || got.Stopped != want || (got.Boot != "") != want {
				t.Errorf("%s, %s: %+v, %v", policy, state, got, err)
			}
			if r := s.reconcileAll(t); len(r.Restart) > 0 {
				t.Errorf("%s, %s: to be started: %v", policy, state, r.Restart)
			}
		}
	}
}
