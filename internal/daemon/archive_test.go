package daemon

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/machine/record"
)

// TestArchiveOfStoppedMachine copies into a machine that does not run. The daemon
// boots it for its files alone and holds it until the copy has ended.
func TestArchiveOfStoppedMachine(t *testing.T) {
	for _, takes := range []bool{false, true} {
		f := newFakeMachines(t)
		f.takes = takes
		f.add("1", "one", record.StateExited)
		f.serve = echo
		d := startDaemon(t, f)
		p, err := d.Archive(t.Context(), "one", api.ArchiveRequest{Path: "/etc", Op: "put"}, api.Stdio{In: strings.NewReader("tar")})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Wait(); err != nil {
			t.Fatal(err)
		}
		f.mu.Lock()
		if want := []string{"start one", "hold one"}; !slices.Equal(f.calls, want) || !f.launch.Files || f.launch.First {
			t.Errorf("calls %q, want %q; launch %+v", f.calls, want, f.launch)
		}
		gone := f.gone["1"]
		f.mu.Unlock()
		<-gone // the hold has ended
	}
}

// TestArchiveOfMachineThatDoesNotBoot copies into a machine whose boot fails.
func TestArchiveOfMachineThatDoesNotBoot(t *testing.T) {
	f := newFakeMachines(t)
	f.add("1", "one", record.StateCreated)
	f.supervise = func(_ context.Context, id string, c *frames.Conn) {
		sendJSON(c, frames.Error, api.Error{Code: api.CodeNoKernel, Message: "no such kernel"})
		closeConn(c)
		f.endSupervisor(id)
	}
	d := startDaemon(t, f)
	if _, err := d.Archive(t.Context(), "one", api.ArchiveRequest{Path: "/etc", Op: "get"}, api.Stdio{}); codeOf(err) != api.CodeNoKernel {
		t.Errorf("error %v, want code %s", err, api.CodeNoKernel)
	}
}
