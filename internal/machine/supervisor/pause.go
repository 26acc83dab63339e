package supervisor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/machine/control"
	"github.com/banger-vm/banger/internal/machine/disk"
	"github.com/banger-vm/banger/internal/vmm/qemu"
)

// A pause records why a machine stands still. The zero value is a machine that
// runs. The pause is no state of the loop: a machine may stand still while it
// boots, runs or stops.
type pause struct {
	mu     sync.Mutex
	reason string    // "" while the machine runs
	since  time.Time // when the reason was set
}

// set reports whether the reason has changed.
func (p *pause) set(reason string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reason == reason {
		return false
	}
	p.reason, p.since = reason, time.Now()
	return true
}

// lasting returns why the machine has stood still for at least d, or "".
func (p *pause) lasting(d time.Duration) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.since) < d {
		return ""
	}
	return p.reason
}

// pollInterval is how often a supervisor checks whether a machine that stands still
// may go on.
const pollInterval = time.Second

// resumeSpace is the free space, in bytes, with which a machine goes on whose host's
// disk was full. With less it would stop again at once.
const resumeSpace = 1 << 20

// watchPause follows the pauses of a machine until its monitor ends. It makes the
// machine go on when its disk has space again, and calls notice with each change.
func (m *instance) watchPause(monitor *qemu.Machine, notice func(string)) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		select {
		case <-monitor.Done():
			return
		case <-monitor.Changes():
		case <-tick.C:
			if m.paused.lasting(0) == "" {
				continue
			}
		}
		if err := m.updatePause(context.Background(), monitor, notice); err != nil {
			continue // the monitor is about to end, or hangs: the next tick tries again
		}
	}
}

// updatePause asks the monitor for its state, and resumes the machine if it can.
func (m *instance) updatePause(ctx context.Context, monitor *qemu.Machine, notice func(string)) error {
	full, err := monitor.HostDiskFull(ctx)
	switch {
	case err != nil:
		return err
	case !full:
		if m.paused.set("") {
			notice("the machine goes on: the host's disk has space again")
		}
		return nil
	}
	if m.paused.set(control.HostDiskFull) {
		notice("the machine is paused until there is space: the host's disk is full, in " + m.dir.Data)
	}
	if free, err := disk.FreeSpace(m.dir.Data); err != nil || free < resumeSpace {
		return err
	}
	return monitor.Cont(ctx)
}

// pausePatience is how long a request waits for a machine that stands still.
const pausePatience = 2 * time.Second

// pauseError returns an error if the machine has stood still for at least d.
func (m *instance) pauseError(d time.Duration) error {
	reason := m.paused.lasting(d)
	if reason == "" {
		return nil
	}
	return fmt.Errorf("machine %s is paused (%s), it goes on when there is space in %s: %w",
		m.record.Config.Name, reason, m.dir.Data, unix.ENOSPC)
}

// awaitResume waits until the machine does not stand still, for at most limit. It
// reports whether the machine runs, or has ended.
func (m *instance) awaitResume(limit time.Duration) bool {
	const interval = 100 * time.Millisecond
	deadline := time.After(limit)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for m.paused.lasting(0) != "" {
		select {
		case <-m.monitor.Done():
			return true
		case <-deadline:
			return false
		case <-tick.C:
		}
	}
	return true
}

// responsive returns a context for a request to the agent. The context ends, with
// the reason as its cause, when the machine has stood still for pausePatience.
func (m *instance) responsive(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		const interval = 100 * time.Millisecond
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			if err := m.pauseError(pausePatience); err != nil {
				cancel(err)
				return
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, cancel
}

// explain returns the reason for err, the error of a request to the agent with the
// context ctx: the cause of the end of ctx, a violation of the agent's protocol, or
// else err itself.
func (m *instance) explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if violation := m.violation(); violation != nil {
		return violation
	}
	return cause(ctx, err)
}

// cause returns the cause of the end of ctx if err is its consequence, and err
// otherwise.
func cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return context.Cause(ctx)
	}
	return err
}

// probe returns an error if the agent does not answer within a few seconds. The
// guest's kernel may hang, or the machine may stand still.
func (m *instance) probe(ctx context.Context) error {
	const limit = 10 * time.Second // an idle host needs milliseconds
	if err := m.pauseError(0); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("machine %s does not answer", m.record.Config.Name))
	defer cancel()
	_, err := m.agent.Status(ctx)
	return m.explain(ctx, err)
}

// pauseReason returns why the machine stands still, or "".
func (v *supervisor) pauseReason() string {
	if m, err := v.loop.running(); err == nil {
		return m.paused.lasting(0)
	}
	return ""
}
