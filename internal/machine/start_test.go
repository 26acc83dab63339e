package machine

import (
	"testing"

	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/test/support/testmachine"
)

// TestMarkLostAfterAReboot checks that a start records the boot of the host as the
// reason for the end of a machine that is recorded as running.
func TestMarkLostAfterAReboot(t *testing.T) {
	s := openStore(t)
	m := testmachine.Kill(t, s.root, s.mustCreate(t, options(t, "box")).ID, record.StateRunning)
	m.MarkRebooted(t)
	dir, err := s.root.Lock(m.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	j, err := record.OpenJournal(t.Context(), dir)
	if err == nil {
		err = markLost(j)
	}
	if err != nil || j.Record().Error != record.HostBooted {
		t.Errorf("record %+v, %v", j.Record(), err)
	}
}
