package supervisor

import (
	"context"
	"testing"

	"github.com/banger-vm/banger/internal/machine/control"
)

// serveLoop calls the functions that are posted to a loop until the test ends.
func serveLoop(t *testing.T, l *loop) {
	t.Helper()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case f := <-l.calls:
				f(context.Background())
			case <-stop:
				return
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-stopped
	})
}

// TestStarterDisconnects checks that a machine that was made to be run ends with
// the client that waits for its first start, and only then. A client that
// disconnects between two restarts must not end the machine.
func TestStarterDisconnects(t *testing.T) {
	for _, row := range []struct {
		name  string
		state state
		ran   bool
		ends  bool
	}{
		{"before the machine is ready", booting, false, true},
		{"while the machine runs", running, true, false},
		{"after a boot has ended", settling, true, false},
		{"before a restart", backingOff, true, false},
		{"during a restart", booting, true, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			mine, theirs := connected(t)
			mine.events = true
			cancelled := make(chan struct{})
			l := newLoop()
			l.state, l.ran, l.cancel = row.state, row.ran, func() { close(cancelled) }
			serveLoop(t, l)
			v := &supervisor{loop: l, fanOut: newFanOut(), launch: control.Launch{First: true}}
			if err := theirs.Close(); err != nil {
				t.Fatal(err)
			}
			(&controlServer{v: v}).serveSubscriber(mine, false)
			var cause stopCause
			l.call(func() { cause = l.cause })
			if ends := cause != notStopped; ends != row.ends {
				t.Errorf("the machine ends: %v", ends)
			}
			if row.ends {
				<-cancelled
			}
		})
	}
}
