package daemon

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/banger-vm/banger/api"
)

// patience is how long a command waits for another that works on the same
// machine, besides the time that either gives the machine to stop.
const patience = 30 * time.Second

// A gate lets one command at a time change a machine.
type gate struct {
	patience time.Duration

	mu    sync.Mutex
	locks map[string]*lock // by the machine's ID; of those in use
}

// A lock is one machine's. What is in it besides slot is guarded by the
// gate's mu.
type lock struct {
	slot   chan struct{} // has room for one
	users  int           // who holds it or waits
	holder string        // what holds it
	since  time.Time
	grace  time.Duration // of the holder
}

func newGate(patience time.Duration) *gate {
	return &gate{patience: patience, locks: map[string]*lock{}}
}

// A turn is a command that wants a machine to itself.
type turn struct {
	id, name  string        // the machine's
	operation string        // what the command does
	grace     time.Duration // how long that may take of itself
}

// enter waits until no other command has the machine. leave may be called
// more than once.
func (g *gate) enter(ctx context.Context, t turn) (leave func(), err error) {
	l, limit := g.queue(t)
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case l.slot <- struct{}{}:
	case <-timer.C:
		return nil, g.leaveQueue(l, t, g.busy(l, t))
	case <-ctx.Done():
		return nil, g.leaveQueue(l, t, ctx.Err())
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	l.holder, l.since, l.grace = t.operation, time.Now(), t.grace
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		l.holder, l.grace = "", 0
		<-l.slot
		g.drop(l, t)
	}), nil
}

func (g *gate) queue(t turn) (*lock, time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.locks[t.id]
	if l == nil {
		l = &lock{slot: make(chan struct{}, 1)}
		g.locks[t.id] = l
	}
	l.users++
	return l, g.patience + max(t.grace, l.grace)
}

func (g *gate) leaveQueue(l *lock, t turn, err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.drop(l, t)
	return err
}

func (g *gate) drop(l *lock, t turn) {
	if l.users--; l.users == 0 {
		delete(g.locks, t.id)
	}
}

func (g *gate) busy(l *lock, t turn) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	holder := "another command"
	if l.holder != "" {
		holder = fmt.Sprintf("%s, for %v now", l.holder, time.Since(l.since).Round(time.Second))
	}
	return &api.Error{Code: api.CodeBusy, Message: fmt.Sprintf("machine %s: busy: %s works on it", t.name, holder)}
}
