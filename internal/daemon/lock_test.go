package daemon

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
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
