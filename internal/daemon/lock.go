package daemon

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/machine/record"
)

// lockTimeout is how long a request waits for the lock of a machine, in addition
// to the time that it or the holder of the lock gives the machine to stop.
const lockTimeout = 30 * time.Second

// machineLocks has a lock for each machine, so that one request at a time changes
// it.
type machineLocks struct {
	timeout time.Duration

	mu    sync.Mutex
	locks map[string]*machineLock // by machine ID; only those in use
}

// A machineLock is the lock of one machine. The mu of machineLocks guards all its
// fields but slot.
type machineLock struct {
	slot      chan struct{} // buffer of one; full while the machine is locked
	users     int           // number of requests that hold the lock or wait for it
	operation string        // of the holder
	since     time.Time     // when the holder got the lock
	grace     time.Duration // of the holder
}

func newMachineLocks(timeout time.Duration) *machineLocks {
	return &machineLocks{timeout: timeout, locks: map[string]*machineLock{}}
}

// A lockRequest asks for the lock of a machine.
type lockRequest struct {
	id, name  string        // of the machine
	operation string        // the command that makes the request, for messages
	grace     time.Duration // how long the operation may wait for the machine to stop
}

// lock waits until no other request holds the lock of the machine, and takes it.
// unlock may be called more than once. The error has the code api.CodeBusy if the
// wait takes too long.
func (l *machineLocks) lock(ctx context.Context, req lockRequest) (unlock func(), err error) {
	m, limit := l.join(req)
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case m.slot <- struct{}{}:
	case <-timer.C:
		return nil, l.giveUp(m, req, l.busy(m, req))
	case <-ctx.Done():
		return nil, l.giveUp(m, req, ctx.Err())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	m.operation, m.since, m.grace = req.operation, time.Now(), req.grace
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		m.operation, m.grace = "", 0
		<-m.slot
		l.leave(m, req)
	}), nil
}

// join adds the request to the users of its machine's lock. It returns the lock and
// how long to wait for it.
func (l *machineLocks) join(req lockRequest) (*machineLock, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.locks[req.id]
	if m == nil {
		m = &machineLock{slot: make(chan struct{}, 1)}
		l.locks[req.id] = m
	}
	m.users++
	return m, l.timeout + max(req.grace, m.grace)
}

// giveUp removes a request that has not got the lock, and returns err.
func (l *machineLocks) giveUp(m *machineLock, req lockRequest, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leave(m, req)
	return err
}

// leave removes a request from the users of a lock. The caller holds mu.
func (l *machineLocks) leave(m *machineLock, req lockRequest) {
	if m.users--; m.users == 0 {
		delete(l.locks, req.id)
	}
}

// busy returns the error of a request that has waited too long.
func (l *machineLocks) busy(m *machineLock, req lockRequest) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	holder := "another command"
	if m.operation != "" {
		holder = fmt.Sprintf("%s, for %v now", m.operation, time.Since(m.since).Round(time.Second))
	}
	return &api.Error{Code: api.CodeBusy, Message: fmt.Sprintf("machine %s: busy: %s works on it", req.name, holder)}
}

// change calls do with the record of the request's machine while it holds the
// machine's lock, and answers the request.
func (h *handlers) change(w http.ResponseWriter, r *http.Request, operation string, grace time.Duration,
	do func(context.Context, *record.Record) error,
) error {
	rec, err := h.find(r)
	if err != nil {
		return err
	}
	return h.changeLocked(w, r, lockRequest{rec.ID, rec.Config.Name, operation, grace},
		func(ctx context.Context) error { return do(ctx, rec) })
}

// changeLocked calls do while it holds the lock of a machine, whose record may be
// unreadable, and answers the request.
func (h *handlers) changeLocked(w http.ResponseWriter, r *http.Request, req lockRequest, do func(context.Context) error) error {
	unlock, err := h.locks.lock(r.Context(), req)
	if err != nil {
		return err
	}
	defer unlock()
	if err := do(r.Context()); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
