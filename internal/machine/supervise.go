package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/guest/client"
	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/machine/ledger"
)

// stopGrace is how long a main command has to end after its stop signal where
// nobody says otherwise, as docker's.
const stopGrace = 10 * time.Second

// Exit codes of machines that did not end by their command.
const (
	exitKilled = 137 // as of a command that was killed
)

// A supervisor is the process that owns one machine, from its start to its
// end, and over its restarts.
type supervisor struct {
	store   *Store
	host    Host
	kernels *kernel.Store
	launch  Launch
	journal *journal
	hub     *hub
	output  *logFile
	ended   chan struct{} // closed once exit is set and recorded

	mu      sync.Mutex
	machine *Machine           // while its agent answers
	main    *client.Process    // while it runs
	stdin   *io.PipeWriter     // what it will read or reads; nil where it reads nothing
	reader  *io.PipeReader     // the other end
	cancel  context.CancelFunc // ends a boot, or the wait before one
	asked   ending             // what has asked for the end
	exit    api.Exit
}

// Supervise is all that a supervisor's process does: it takes over the machine
// id from the process that called Start, boots it, runs its main command,
// serves those who ask for something, and gives everything back at its end. h
// needs no Kernel: the machine's is taken from kernels. When ctx ends the
// machine is stopped.
func (s *Store) Supervise(ctx context.Context, id string, kernels *kernel.Store, h Host) error {
	start, dir, err := s.inherit(id)
	if err != nil {
		return fmt.Errorf("supervise machine %s: %w", id, err)
	}
	conn := frames.New(start)
	var launch Launch
	frame, err := conn.Next()
	if err == nil {
		err = frame.JSON(&launch)
	}
	j, journalErr := s.openJournal(ctx, dir)
	if journalErr != nil {
		return errors.Join(fmt.Errorf("supervise machine %s: %w", id, journalErr), conn.SendJSON(frames.Error, WireError(journalErr)))
	}
	if err != nil { // whoever started this is gone
		return j.abandon(context.WithoutCancel(ctx), j.rec.State == StateCreating)
	}
	v := &supervisor{
		store: s, host: h, kernels: kernels, launch: launch, journal: j, hub: newHub(), ended: make(chan struct{}),
	}
	if err := v.run(ctx, &audience{conn: conn, raw: start, events: true, output: launch.Attach, console: launch.Console}); err != nil {
		return fmt.Errorf("supervise machine %s: %w", id, err)
	}
	return nil
}

// inherit takes what the process that called Start has passed on.
func (s *Store) inherit(id string) (net.Conn, *folder, error) {
	syscall.CloseOnExec(startFD)
	syscall.CloseOnExec(lockFD)
	file, lock := os.NewFile(startFD, "start"), os.NewFile(lockFD, s.dataDir(id))
	mine, err := os.Stat(s.dataDir(id))
	if err != nil {
		return nil, nil, err
	}
	locked, err := lock.Stat()
	if err != nil || !os.SameFile(mine, locked) {
		return nil, nil, errors.Join(errors.New("the machine's lock was not passed on"), err)
	}
	start, err := net.FileConn(file)
	if err != nil {
		return nil, nil, err
	}
	return start, &folder{data: s.dataDir(id), runtime: s.runtimeDir(id), lock: lock}, file.Close()
}

// run is the supervisor's life.
func (v *supervisor) run(ctx context.Context, start *audience) (err error) {
	own := context.WithoutCancel(ctx)
	v.hub.join(start)
	desk, err := v.openDesk(own)
	if err != nil {
		err = errors.Join(err, v.journal.abandon(own, v.launch.First))
		v.fail(err)
		return err
	}
	v.output, err = openLog(filepath.Join(v.journal.dir.data, CommandLog), commandLogSize)
	if err != nil {
		err = errors.Join(err, v.journal.abandon(own, v.launch.First), desk.close())
		v.fail(err)
		return err
	}
	v.openInput()
	desk.visitors.Go(func() { desk.attend(start, v.launch.Attach) })
	stop := context.AfterFunc(ctx, func() { v.stop(own, byHost, stopGrace) })
	defer stop()
	err = v.lives(own)
	close(v.ended)
	v.dismiss()
	return errors.Join(err, v.output.close(), desk.close())
}

// dismiss tells those who are attached how the machine ended, and lets them
// go.
func (v *supervisor) dismiss() {
	exit := v.lastExit()
	all := func(*audience) bool { return true }
	v.hub.tell(frames.Exit, exit, all)
	v.hub.dismiss(all)
}

// lives boots the machine as often as its policy says. Its last end is
// recorded, and everything given back, when it returns.
func (v *supervisor) lives(ctx context.Context) error {
	for n := 0; ; n++ {
		started := time.Now()
		err := v.life(ctx, n)
		if n == 0 && err != nil && !v.booted() {
			abandoned := v.journal.abandon(ctx, v.launch.First)
			v.fail(err)
			return abandoned
		}
		if err := v.settle(ctx); err != nil {
			return err
		}
		if !v.again(n) {
			return v.finish(ctx)
		}
		v.dismiss()
		if !v.pause(n, time.Since(started)) {
			return v.finish(ctx)
		}
	}
}

// booted reports whether the machine's agent has ever answered.
func (v *supervisor) booted() bool { return v.journal.record().State == StateRunning }

// life is one boot of the machine to its end. The error says why it did not
// boot, or why it ended where that was not in order.
func (v *supervisor) life(ctx context.Context, n int) error {
	bootCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	if n > 0 {
		v.openInput()
	}
	defer v.closeInput()
	if !v.begin(cancel) {
		return errAsked
	}
	rec := v.journal.record()
	m := &Machine{Record: &rec, dir: v.journal.dir, journal: v.journal}
	err := v.boot(bootCtx, m, n)
	if err == nil {
		err = v.announce(m, n)
	}
	if err != nil {
		err = errors.Join(err, m.hangUp())
		v.leave()
		v.setExit(exitFailed, err)
		return err
	}
	go func() {
		<-m.monitor.Done()
		v.hub.hurryUp()
	}()
	code, err := v.runCommand(ctx, m)
	err = errors.Join(err, m.settle(err != nil))
	v.setExit(code, err)
	v.leave()
	return errors.Join(err, m.hangUp())
}

// boot starts the machine until its agent answers.
func (v *supervisor) boot(ctx context.Context, m *Machine, n int) error {
	h := v.host
	var err error
	if h.Kernel, err = v.kernels.Find(string(orDefault(v.launch.Kernel, m.Record.Kernel))); err != nil {
		return err
	}
	m.Record.Kernel = h.Kernel.ID
	h.Accel = orDefault(v.launch.Accel, m.Record.Config.Accel)
	events := func(a *audience) bool { return a.events }
	h.Phase = func(done string) { v.hub.tell(frames.Event, api.Event{Phase: done}, events) }
	h.Notice = func(text string) { v.hub.tell(frames.Event, api.Event{Notice: text}, events) }
	if n == 0 && !v.launch.First { // Run has said so already
		v.warn(&h, m.Record)
	}
	h.Console = hubWriter{v.hub, frames.Console, func(a *audience) bool { return a.console }}
	h.Out = v.hub.output(frames.Stdout)
	err = m.boot(ctx, &h)
	if err != nil && v.wasAsked() {
		return errAsked
	}
	return err
}

// warn says what is to be said before the machine runs beside others.
func (v *supervisor) warn(h *Host, rec *Record) {
	others, _, err := v.store.Machines()
	if err != nil {
		h.notice("whether the host has memory for the machine is not known: %v", err)
		return
	}
	for _, text := range memoryWarnings(others, rec) {
		h.notice("%s", text)
	}
}

// announce records that the machine runs.
func (v *supervisor) announce(m *Machine, n int) error {
	v.journal.reserve()
	err := v.journal.update(func(rec *Record) {
		rec.State, rec.Started, rec.Finished = StateRunning, time.Now().UTC(), time.Time{}
		rec.ExitCode, rec.Error, rec.Restarts = 0, "", n
		rec.Kernel = m.Record.Kernel
		if n == 0 {
			rec.Stopped = false
		}
	})
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.asked != byItself { // since the boot could be ended no more
		return errAsked
	}
	v.machine = m
	return nil
}

// ready tells those who wait for it that the machine runs, and its main
// command where it has one.
func (v *supervisor) ready() {
	v.hub.tell(frames.Event, api.Event{Ready: true}, func(a *audience) bool { return a.events })
	v.hub.dismiss(func(a *audience) bool { return a.events && !a.output && !a.console })
}

// runCommand runs the main command, or waits for the end of a machine whose
// image's init is all that runs.
func (v *supervisor) runCommand(ctx context.Context, m *Machine) (code int, err error) {
	if !m.HasMain() {
		v.ready()
		return 0, m.WaitEnd()
	}
	streams := client.Stdio{
		Out: io.MultiWriter(v.output.stream("stdout"), v.hub.output(frames.Stdout)),
		Err: io.MultiWriter(v.output.stream("stderr"), v.hub.output(frames.Stderr)),
	}
	if v.input() != nil {
		streams.In = v.reader
	}
	if m.Record.Config.TTY {
		streams.TTY = terminal(orDefault(v.launch.TTY, &api.TTY{}))
	}
	p, err := m.Main(ctx, streams)
	if err != nil {
		return exitFailed, err
	}
	v.mu.Lock()
	v.main = p
	v.mu.Unlock()
	v.ready()
	exit, err := m.WaitMain(p)
	if err != nil {
		return exitFailed, err
	}
	return exit.Code, nil
}

// terminal is what a command gets that is to have one.
func terminal(t *api.TTY) *client.TTY {
	const columns, rows = 80, 24 // where there is none to take them from
	if t == nil {
		return nil
	}
	return &client.TTY{Term: orDefault(t.Term, "xterm"), Rows: orDefault(t.Rows, rows), Cols: orDefault(t.Cols, columns)}
}

// leave ends what needs the agent.
func (v *supervisor) leave() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.machine, v.main = nil, nil
}

func (v *supervisor) setExit(code int, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.exit = api.Exit{Code: code}
	switch {
	case v.asked == byKill, v.asked != byItself && err != nil && v.main == nil: // the latter: before its command ran
		v.exit.Code = exitKilled
	case err != nil:
		v.exit.Error = err.Error()
	}
}

// settle records the end of one life and gives back what only that had.
func (v *supervisor) settle(ctx context.Context) error {
	v.mu.Lock()
	exit, asked := v.exit, v.asked
	v.mu.Unlock()
	v.journal.freeReserve()
	v.journal.set(func(rec *Record) {
		rec.State, rec.ExitCode, rec.Error, rec.Finished = StateExited, exit.Code, exit.Error, time.Now().UTC()
		if rec.Stopped = false; asked >= byUser {
			rec.stop()
		}
	})
	return v.journal.giveBack(ctx, func(e *ledger.Entry) bool {
		return e.Kind != ledger.Disk && e.Kind != ledger.Folder && e.Kind != ledger.Socket && e.Name != supervisorPart
	})
}

// finish gives everything back, with the machine itself where it was to go
// with its end.
func (v *supervisor) finish(ctx context.Context) error {
	if v.journal.record().Remove {
		return v.journal.discard(ctx)
	}
	return v.journal.clear(ctx)
}

// fail tells whoever started the machine why it did not come up.
func (v *supervisor) fail(err error) {
	v.mu.Lock()
	v.exit = api.Exit{Code: exitFailed, Error: err.Error()}
	v.mu.Unlock()
	told := func(a *audience) bool { return a.events }
	v.hub.tell(frames.Error, WireError(err), told)
	v.hub.dismiss(told)
}

// again says whether the machine is booted again after its n-th life.
func (v *supervisor) again(n int) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.asked != byItself {
		return false
	}
	rec := v.journal.record()
	switch r := rec.Config.Restart; r.Policy {
	case RestartAlways, RestartUnlessStopped:
		return true
	case RestartOnFailure:
		return v.exit.Code != 0 && (r.Retries == 0 || n < r.Retries)
	case RestartNo:
	}
	return false
}

// pause waits before a restart, longer from one to the next unless the
// machine has lived for a while. It reports false when a user asks for the
// end meanwhile.
func (v *supervisor) pause(n int, lived time.Duration) bool {
	const (
		shortest = 100 * time.Millisecond
		longest  = time.Minute
		while    = 10 * time.Second
	)
	wait := shortest
	if lived < while {
		wait = min(longest, shortest<<min(n, 10)) //nolint:mnd // 2^10 times the shortest is past the longest
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	if !v.begin(cancel) {
		return false
	}
	<-ctx.Done()
	return !v.wasAsked()
}
