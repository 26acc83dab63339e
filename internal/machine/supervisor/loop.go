package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/guest/client"
	"github.com/banger-vm/banger/internal/machine/record"
)

// A stopCause records who requested the stop. If there were several requests,
// the highest value wins.
type stopCause int

const (
	notStopped stopCause = iota
	stoppedByHost
	stoppedByUser
	killedByUser
)

// errStopped reports that a boot was not begun, or was cancelled, because a
// user stopped the machine.
var errStopped = errors.New("the machine was stopped while it booted")

// An input is the pipe to the main command's standard input.
type input struct {
	r *io.PipeReader
	w *io.PipeWriter
}

// A loop owns the state of a machine: only functions that its goroutine calls
// use the fields below done. Other goroutines use call and post.
type loop struct {
	calls chan func(context.Context)
	steps sync.WaitGroup
	done  chan struct{} // closed when the state is ended; then the fields do not change any more

	table    map[state]map[event]transition
	state    state
	cause    stopCause
	ran      bool               // a boot has succeeded
	boots    int                // boots that have ended
	began    time.Time          // the last boot
	instance *instance          // while its agent answers
	down     *instance          // to be closed by settle; nil if the boot has closed it
	main     *client.Process    // while it runs
	input    *input             // of the main command; nil if it has none
	cancel   context.CancelFunc // cancels the boot or the wait before a restart
	grace    time.Duration      // of the last stop request
	exit     api.Exit
	bootErr  error // why the first boot failed
	err      error // a resource that could not be given back
}

func newLoop() *loop {
	return &loop{calls: make(chan func(context.Context)), done: make(chan struct{}), table: transitions(), state: booting}
}

// post makes the loop call f. It does nothing after the loop has ended.
func (l *loop) post(f func(context.Context)) {
	select {
	case l.calls <- f:
	case <-l.done:
	}
}

// call makes the loop call f and waits until f has returned. f only reads.
func (l *loop) call(f func()) {
	returned := make(chan struct{})
	select {
	case l.calls <- func(context.Context) { f(); close(returned) }:
		<-returned
	case <-l.done:
		f()
	}
}

// next returns the transition for an event and takes the loop to its state.
func (l *loop) next(e event) action {
	t, ok := l.table[l.state][e]
	if !ok {
		panic(fmt.Sprintf("supervisor: event %s in state %s", e, l.state))
	}
	l.state = t.next
	return t.action
}

// runLoop boots the machine and returns when its state is ended.
func (v *supervisor) runLoop(ctx context.Context) error {
	l := v.loop
	v.start(ctx, boot)
	for l.state != ended {
		(<-l.calls)(ctx)
	}
	close(l.done)
	l.steps.Wait()
	return l.err
}

// handle takes the loop through the transition for an event. Only the loop
// calls it.
func (v *supervisor) handle(ctx context.Context, e event) {
	v.start(ctx, v.loop.next(e))
}

// start starts an action. Only the loop calls it. An action that blocks runs
// as a step beside the loop.
func (v *supervisor) start(ctx context.Context, a action) {
	l := v.loop
	switch a {
	case none:
	case boot:
		v.startBoot(ctx)
	case cancelBoot:
		l.cancel()
	case runMain:
		m, in := l.instance, l.input
		l.steps.Go(func() { v.runMainStep(ctx, m, in) })
	case powerOff:
		m, grace := l.instance, l.grace
		l.steps.Go(func() { m.stop(ctx, grace) }) //nolint:errcheck // the machine ends in any case, and the record has the reason
	case killMonitor:
		m := l.instance
		l.steps.Go(func() { m.kill() }) //nolint:errcheck // the end of the machine is seen by its process
	case settle:
		v.startSettle(ctx)
	case waitToRestart:
		v.startBackOff(ctx)
	case finish:
		l.cancel()
		l.steps.Go(func() { v.finishStep(ctx) })
	case abandon:
		err := l.bootErr
		l.steps.Go(func() { v.abandonStep(ctx, err) })
	}
}

// requestStop stops the machine in good order if it runs, and cancels its boot
// if it does not run yet.
func (v *supervisor) requestStop(cause stopCause, grace time.Duration) {
	v.loop.post(func(ctx context.Context) {
		v.loop.cause, v.loop.grace = max(v.loop.cause, cause), grace
		v.handle(ctx, stopRequested)
	})
}

// requestKill ends the machine as pulling the plug would.
func (v *supervisor) requestKill() {
	v.loop.post(func(ctx context.Context) {
		v.loop.cause = killedByUser
		v.handle(ctx, killRequested)
	})
}

// running returns the machine if its agent answers. The error is
// record.ErrNotRunning.
func (l *loop) running() (m *instance, err error) {
	l.call(func() { m = l.instance })
	if m == nil {
		return nil, record.ErrNotRunning
	}
	return m, nil
}

// mainCommand returns the main command if it runs, or nil.
func (l *loop) mainCommand() (p *client.Process) {
	l.call(func() { p = l.main })
	return p
}

// mainInput returns the main command's standard input, or nil if it has none.
func (l *loop) mainInput() (w *io.PipeWriter) {
	l.call(func() {
		if l.input != nil {
			w = l.input.w
		}
	})
	return w
}

// hasRun reports whether a boot of the machine has succeeded.
func (l *loop) hasRun() (ran bool) {
	l.call(func() { ran = l.ran })
	return ran
}

// lastExit returns how the machine ended last.
func (l *loop) lastExit() (exit api.Exit) {
	l.call(func() { exit = l.exit })
	return exit
}

// setExit sets how the machine ended. Only the loop calls it.
func (l *loop) setExit(code int, err error) {
	l.exit = api.Exit{Code: code}
	stoppedBeforeMain := l.cause != notStopped && err != nil && l.main == nil
	switch {
	case l.cause == killedByUser, stoppedBeforeMain:
		l.exit.Code = exitKilled
	case err != nil:
		l.exit.Error = err.Error()
	}
}
