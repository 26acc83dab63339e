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

func TestGateSerialises(t *testing.T) {
	g := newGate(time.Minute)
	var inside, most int
	var mu sync.Mutex
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			leave, err := g.enter(t.Context(), turn{id: "a", operation: "stop"})
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
			leave()
			leave() // harmless
		})
	}
	all.Wait()
	if most != 1 {
		t.Errorf("%d at once", most)
	}
	if len(g.locks) != 0 {
		t.Errorf("%d locks are left", len(g.locks))
	}
}

func TestGateSaysWhoHasIt(t *testing.T) {
	g := newGate(time.Millisecond)
	leave, err := g.enter(t.Context(), turn{"a", "web", "stop", 0})
	if err != nil {
		t.Fatal(err)
	}
	_, err = g.enter(t.Context(), turn{"a", "web", "start", 0})
	if codeOf(err) != api.CodeBusy || !strings.Contains(err.Error(), "machine web: busy: stop") {
		t.Errorf("second command: %v", err)
	}
	if other, err := g.enter(t.Context(), turn{"b", "db", "start", 0}); err != nil {
		t.Errorf("another machine: %v", err)
	} else {
		other()
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	g.patience = time.Hour
	if _, err := g.enter(canceled, turn{"a", "web", "rm", 0}); !errors.Is(err, context.Canceled) {
		t.Errorf("a client that went: %v", err)
	}
	leave()
	if len(g.locks) != 0 {
		t.Errorf("%d locks are left", len(g.locks))
	}
}
