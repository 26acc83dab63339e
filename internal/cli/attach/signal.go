package attach

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/exit"
	"golang.org/x/sys/unix"
)

// catchSignals returns a channel of the signals that a session handles, and a
// function that gives them their usual effect again.
func catchSignals() (signals <-chan os.Signal, stop func()) {
	ch := make(chan os.Signal, 8)
	// If the reader of the output goes away before the command ends, the write
	// fails, and the loop stops the machine. SIGPIPE would end banger before that.
	signal.Ignore(syscall.SIGPIPE)
	signal.Notify(ch, os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH)
	if !signal.Ignored(syscall.SIGHUP) { // nohup(1) has it ignored
		signal.Notify(ch, syscall.SIGHUP)
	}
	return ch, func() {
		signal.Stop(ch)
		signal.Reset(syscall.SIGPIPE)
	}
}

// asksForEnd reports whether a signal asks a program to end.
func asksForEnd(s syscall.Signal) bool {
	return slices.Contains([]syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT}, s)
}

// signal handles one signal. Of the signals that ask for an end, the first one
// goes to the command, the second stops the machine, and the third kills it;
// with Exec all go to the command. A signal that arrives before the command is
// started ends the boot.
func (l *loop) signal(ctx context.Context, number syscall.Signal) {
	if !asksForEnd(number) {
		if l.ready {
			l.deliver(number)
		}
		return
	}
	l.ends++
	switch {
	case !l.ready:
		l.abort(ctx)
	case l.Exec || l.ends == 1:
		l.deliver(number)
	case l.ends == 2:
		l.Env.Note("stopping the machine; once more to kill it")
		l.code = int(exit.BySignal(int(number)))
		l.stop(ctx)
	case l.ends == 3:
		l.final = true
		l.kill(ctx)
	}
}

// abort ends a start. If the machine is to be removed and its ID is not known
// yet, event calls abort again.
func (l *loop) abort(ctx context.Context) {
	switch {
	case !l.RemoveOnAbort:
		l.kill(ctx)
	case l.Machine != "":
		// The request must not end with the command: a machine that becomes ready
		// at this moment would stay.
		ctx = context.WithoutCancel(ctx)
		l.request(ctx, "removing", func() error {
			return errors.Join(l.process.Close(), l.Daemon.Remove(ctx, l.Machine, true))
		})
	}
}

func (l *loop) stop(ctx context.Context) {
	l.request(ctx, "stopping", func() error { return l.Daemon.Stop(ctx, l.Machine, api.StopRequest{}) })
}

func (l *loop) kill(ctx context.Context) {
	l.request(ctx, "killing", func() error { return l.Daemon.Kill(ctx, l.Machine, api.KillRequest{}) })
}

// request calls do in a goroutine, so that the loop handles the next signal
// meanwhile. wait waits for it.
func (l *loop) request(ctx context.Context, verb string, do func() error) {
	l.stops.Go(func() {
		// A machine that has ended in the meantime needs no request.
		if err := do(); err != nil && ctx.Err() == nil && !HasEnded(err) {
			l.Env.Note("%s the machine: %v", verb, err)
		}
	})
}

// deliver passes a signal on to the command; SIGWINCH becomes the new size of
// its terminal. It does not wait: a guest that reads nothing must not delay the
// next signal. The goroutine ends with the connection at the latest.
func (l *loop) deliver(s syscall.Signal) {
	p := l.process
	go func() {
		if s == syscall.SIGWINCH {
			l.term.resize(p)
			return
		}
		_ = p.Signal(strings.TrimPrefix(unix.SignalName(s), "SIG")) // a command that has ended needs no signal
	}()
}
