package machine

import (
	"testing"

	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/spec"
	"github.com/banger-vm/banger/test/support/testmachine"
)

// TestStopKeepsAMachineStopped checks that Stop of a machine that does not run keeps
// the restart policy from starting it, also if its supervisor was just killed.
func TestStopKeepsAMachineStopped(t *testing.T) {
	for _, state := range []record.State{record.StateRunning, record.StateExited, record.StateCreated} {
		for _, policy := range []spec.RestartPolicy{spec.RestartAlways, spec.RestartUnlessStopped, spec.RestartNo} {
			s := openStore(t)
			rec, dir := testmachine.Lock(t, s.root, "box", func(r *record.Record) { r.Config.Restart.Policy, r.State = policy, state })
			dir.Close()
			if err := s.Stop(t.Context(), rec.ID, 0); err != nil {
				t.Fatal(err)
			}
			got, err := record.Read(dir.Data)
			want := policy != spec.RestartNo && state != record.StateCreated
			if err != nil || got.Stopped != want || (got.Boot != "") != want {
				t.Errorf("%s, %s: %+v, %v", policy, state, got, err)
			}
			if r := s.mustReconcile(t); len(r.Restart) > 0 {
				t.Errorf("%s, %s: listed for a restart: %v", policy, state, r.Restart)
			}
		}
	}
}
