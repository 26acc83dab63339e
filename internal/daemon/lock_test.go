package daemon

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/machine/record"
)

func TestOneRequestHoldsTheLock(t *testing.T) {
	locks := newMachineLocks(time.Minute)
	var inside, most int
	var mu sync.Mutex
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			unlock, err := locks.lock(t.Context(), lockRequest{id: "a", operation: "stop"})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			inside++
			most = max(most, inside)
			mu.Unlock()
			mu.Lock()
			inside--
			mu.Unlock()
			unlock()
			unlock() // has no effect
		})
	}
	all.Wait()
	if most != 1 {
		t.Errorf("%d at once", most)
	}
	if len(locks.locks) != 0 {
		t.Errorf("%d locks are left", len(locks.locks))
	}
}

func TestBusyErrorNamesTheHolder(t *testing.T) {
	locks := newMachineLocks(time.Millisecond)
	unlock, err := locks.lock(t.Context(), lockRequest{"a", "web", "stop", 0})
	if err != nil {
		t.Fatal(err)
	}
	_, err = locks.lock(t.Context(), lockRequest{"a", "web", "start", 0})
	if codeOf(err) != api.CodeBusy || !strings.Contains(err.Error(), "machine web: busy: stop") {
		t.Errorf("second command: %v", err)
	}
	if unlockOther, err := locks.lock(t.Context(), lockRequest{"b", "db", "start", 0}); err != nil {
		t.Errorf("another machine: %v", err)
	} else {
		unlockOther()
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	locks.timeout = time.Hour
	if _, err := locks.lock(canceled, lockRequest{"a", "web", "rm", 0}); !errors.Is(err, context.Canceled) {
		t.Errorf("after the client has disconnected: %v", err)
	}
	unlock()
	if len(locks.locks) != 0 {
		t.Errorf("%d locks are left", len(locks.locks))
	}
}

// TestChangesWaitForTheLock renames a machine while another request stops it.
func TestChangesWaitForTheLock(t *testing.T) {
	f := newFakeMachines(t)
	f.add(idOne, "one", record.StateRunning)
	entered, goOn := make(chan struct{}), make(chan struct{})
	f.stop = func(context.Context, string) error {
		entered <- struct{}{}
		<-goOn
		return nil
	}
	d := startDaemon(t, f)
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- d.Stop(t.Context(), "one", api.StopRequest{}) }()
	<-entered
	go func() { second <- d.Rename(t.Context(), "one", "other") }()
	if _, err := d.Inspect(t.Context(), "one"); err != nil { // a request that changes nothing does not wait
		t.Error(err)
	}
	close(goOn)
	if err := errors.Join(<-first, <-second); err != nil {
		t.Error(err)
	}
	if calls := f.called(); calls != "stop one 10s, rename one other" {
		t.Errorf("calls: %s", calls)
	}
}

// TestKillCutsAStopShort kills a machine while another request stops it.
func TestKillCutsAStopShort(t *testing.T) {
	f := newFakeMachines(t)
	f.add(idOne, "one", record.StateRunning)
	entered := make(chan struct{})
	f.stop = func(_ context.Context, id string) error {
		close(entered)
		gone, _ := f.supervisorEnd(id)
		<-gone
		return nil
	}
	d := startDaemon(t, f)
	stopped := make(chan error, 1)
	go func() { stopped <- d.Stop(t.Context(), "one", api.StopRequest{}) }()
	<-entered
	if err := errors.Join(d.Kill(t.Context(), "one", api.KillRequest{}), <-stopped); err != nil {
		t.Error(err)
	}
}
