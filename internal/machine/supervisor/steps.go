package supervisor

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/guest/client"
	"github.com/banger-vm/banger/internal/machine/ledger"
	"github.com/banger-vm/banger/internal/machine/logs"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/spec"
	"github.com/banger-vm/banger/internal/vmm/qemu"
)

// exitKilled is the exit code of a machine that a user has killed: that of a
// command that SIGKILL ended.
const exitKilled = 137

// errOutOfMemory is the reason for the end of a machine whose main command was
// killed by its own kernel.
var errOutOfMemory = errors.New("the machine is out of memory: its kernel has killed the command")

// startBoot starts the boot step. Only the loop calls it.
func (v *supervisor) startBoot(ctx context.Context) {
	l := v.loop
	bootCtx, cancel := context.WithCancel(ctx)
	l.cancel, l.began = cancel, time.Now()
	if l.boots > 0 {
		l.input = v.newInput()
	}
	n := l.boots
	l.steps.Go(func() {
		defer cancel()
		rec := v.journal.Record()
		m := &instance{record: &rec, dir: v.journal.Dir, journal: v.journal}
		if v.files != nil {
			rec.Plan, m.files = planFiles(&rec.Plan), true
		}
		err := v.bootInstance(bootCtx, m, n)
		if err == nil {
			err = v.recordRunning(m, n)
		}
		if err != nil {
			err, m = errors.Join(err, m.close()), nil
		}
		l.post(func(ctx context.Context) { v.bootEnded(ctx, m, err) })
	})
}

// bootEnded handles the result of a boot. m is nil if it failed. Only the loop
// calls it.
func (v *supervisor) bootEnded(ctx context.Context, m *instance, err error) {
	l := v.loop
	if l.cause != notStopped { // m is not nil if it was too late to cancel the boot
		err = errStopped
	}
	if err != nil {
		l.down = m
		v.loop.setExit(record.ExitFailed, err)
	}
	hasRun := v.journal.Record().State == record.StateRunning
	switch {
	case err != nil && l.boots == 0 && !hasRun:
		l.bootErr = err
		v.handle(ctx, firstBootFailed)
	case err != nil:
		v.handle(ctx, bootFailed)
	default:
		l.instance, l.ran = m, true
		v.handle(ctx, bootSucceeded)
	}
}

// bootInstance boots the machine until its agent answers.
func (v *supervisor) bootInstance(ctx context.Context, m *instance, n int) error {
	// The end of the boot must be recorded too.
	if err := v.journal.Reserve(); err != nil {
		return err
	}
	if n == 0 {
		for _, text := range v.launch.Notices {
			v.notice(text)
		}
	}
	k, err := v.Kernels.Find(string(spec.OrDefault(v.launch.Kernel, m.record.Kernel)))
	if err != nil {
		return err
	}
	m.record.Kernel = k.ID
	return m.boot(ctx, &bootConfig{
		kernel: k, accel: v.accel(m.record), cache: v.Cache, monitor: qemu.Monitor{Folders: v.QEMUFolders, Unconfined: v.Unconfined},
		console: v.fanOut.writer(frames.Console, func(s *subscriber) bool { return s.console }),
		output:  v.fanOut.output(frames.Stdout),
		notice:  v.notice, phase: v.phase, pauses: v.noticeAll,
	})
}

// recordRunning records that the machine runs.
func (v *supervisor) recordRunning(m *instance, n int) error {
	if v.files != nil {
		return nil
	}
	return v.journal.Update(func(rec *record.Record) {
		rec.State, rec.Started, rec.Finished = record.StateRunning, time.Now().UTC(), time.Time{}
		rec.ExitCode, rec.Error, rec.Restarts = 0, "", n
		rec.Kernel = m.record.Kernel
		if n == 0 {
			rec.Stopped = false
		}
	})
}

// runMainStep runs the main command and waits until the machine is down.
func (v *supervisor) runMainStep(ctx context.Context, m *instance, in *input) {
	v.loop.steps.Go(func() {
		<-m.monitor.Done()
		v.fanOut.limitWaits()
	})
	code, err := v.runMain(ctx, m, in)
	killedByOOM := err == nil && code == exitKilled && m.console.killedByOOM()
	err = errors.Join(err, m.waitDown(ctx, err != nil))
	if err != nil {
		m.console.note(err.Error())
	}
	v.loop.post(func(ctx context.Context) {
		l := v.loop
		if killedByOOM && err == nil && l.cause == notStopped {
			err = errOutOfMemory
		}
		v.loop.setExit(code, err)
		l.instance, l.main, l.down = nil, nil, m
		v.handle(ctx, machineEnded)
	})
}

// runMain runs the main command and returns its exit code. If the image's init
// is all that runs, it waits for the end of the machine.
func (v *supervisor) runMain(ctx context.Context, m *instance, in *input) (code int, err error) {
	if v.files != nil {
		return 0, v.serveFiles(ctx, m)
	}
	if !m.hasMain() {
		v.reportReady()
		return 0, m.waitEnd()
	}
	streams := client.Stdio{
		Out: io.MultiWriter(v.output.Stream(logs.StreamStdout), v.fanOut.output(frames.Stdout)),
		Err: io.MultiWriter(v.output.Stream(logs.StreamStderr), v.fanOut.output(frames.Stderr)),
	}
	if in != nil {
		streams.In = in.r
	}
	if m.record.Config.TTY {
		streams.TTY = terminal(spec.OrDefault(v.launch.TTY, &api.TTY{}))
	}
	p, err := m.startMain(ctx, streams)
	if err != nil {
		return record.ExitFailed, err
	}
	v.loop.post(func(context.Context) { v.loop.main = p })
	v.reportReady()
	exit, err := m.waitMain(p)
	if err != nil {
		return record.ExitFailed, err
	}
	return exit.Code, nil
}

// terminal returns the terminal of a command, with defaults for the fields
// that t lacks. It returns nil if t is nil.
func terminal(t *api.TTY) *client.TTY {
	const columns, rows = 80, 24
	if t == nil {
		return nil
	}
	return &client.TTY{Term: spec.OrDefault(t.Term, "xterm"), Rows: spec.OrDefault(t.Rows, rows), Cols: spec.OrDefault(t.Cols, columns)}
}

// startSettle starts the step that records the end of one boot and gives back
// its resources. Only the loop calls it.
func (v *supervisor) startSettle(ctx context.Context) {
	l := v.loop
	m, in, exit, cause := l.down, l.input, l.exit, l.cause
	l.down, l.input = nil, nil
	l.steps.Go(func() {
		var err error
		if m != nil {
			err = m.close()
		}
		if in != nil {
			in.w.Close()
		}
		if settleErr := v.recordEnd(ctx, exit, cause); settleErr != nil {
			l.post(func(ctx context.Context) {
				l.err = errors.Join(err, settleErr)
				v.handle(ctx, finished)
			})
			return
		}
		l.post(v.decideRestart)
	})
}

// recordEnd records the end of one boot and gives back its resources.
func (v *supervisor) recordEnd(ctx context.Context, exit api.Exit, cause stopCause) error {
	v.journal.FreeReserve()
	v.journal.Set(func(rec *record.Record) {
		if v.files != nil {
			return
		}
		rec.State, rec.ExitCode, rec.Error, rec.Finished = record.StateExited, exit.Code, exit.Error, time.Now().UTC()
		if rec.Stopped = false; cause >= stoppedByUser {
			rec.MarkStopped()
		}
	})
	return v.journal.GiveBack(ctx, func(e *ledger.Entry) bool {
		return e.Kind != ledger.Disk && e.Kind != ledger.Folder && e.Kind != ledger.Socket && e.Name != record.SupervisorEntry
	})
}

// decideRestart posts whether the machine boots again. Only the loop calls it.
func (v *supervisor) decideRestart(ctx context.Context) {
	l := v.loop
	if v.files == nil && l.cause == notStopped && wantsRestart(v.journal.Record().Config.Restart, l.exit.Code, l.boots) {
		v.handle(ctx, willRestart)
		return
	}
	v.handle(ctx, willFinish)
}

// wantsRestart reports whether a policy boots a machine again that ended by
// itself with code, after it was restarted n times.
func wantsRestart(r spec.Restart, code, n int) bool {
	switch r.Policy {
	case spec.RestartAlways, spec.RestartUnlessStopped:
		return true
	case spec.RestartOnFailure:
		return code != 0 && (r.Retries == 0 || n < r.Retries)
	case spec.RestartNo:
	}
	return false
}

// startBackOff starts the wait before a restart. Only the loop calls it.
func (v *supervisor) startBackOff(ctx context.Context) {
	l := v.loop
	wait := backOff(l.boots, time.Since(l.began))
	l.boots++
	waitCtx, cancel := context.WithCancel(ctx)
	l.cancel = cancel
	l.steps.Go(func() {
		defer cancel()
		v.dismissAll()
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
			l.post(func(ctx context.Context) { v.handle(ctx, restartDue) })
		case <-waitCtx.Done():
		}
	})
}

// backOff returns the time to wait before restart n+1 of a machine that has
// run for lived. It doubles from one restart to the next, unless the machine
// has run for a while.
func backOff(n int, lived time.Duration) time.Duration {
	const (
		shortest  = 100 * time.Millisecond
		longest   = time.Minute
		longLived = 10 * time.Second
		doublings = 10 // 2^10 times the shortest is more than the longest
	)
	if lived >= longLived {
		return shortest
	}
	return min(longest, shortest<<min(n, doublings))
}

// finishStep gives everything back. It removes the machine if the record asks
// for that.
func (v *supervisor) finishStep(ctx context.Context) {
	var err error
	if v.journal.Record().Remove && v.files == nil {
		err = v.journal.Discard(ctx)
	} else {
		err = v.journal.Clear(ctx)
	}
	v.loop.post(func(ctx context.Context) {
		v.loop.err = err
		v.handle(ctx, finished)
	})
}

// abandonStep undoes a first boot that failed with bootErr, and reports it.
func (v *supervisor) abandonStep(ctx context.Context, bootErr error) {
	err := v.journal.Abandon(ctx, v.launch.First)
	v.reportFailure(bootErr)
	v.loop.post(func(ctx context.Context) {
		v.loop.exit = api.Exit{Code: record.ExitFailed, Error: bootErr.Error()}
		v.loop.err = err
		v.handle(ctx, finished)
	})
}
