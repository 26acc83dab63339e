package attach

import (
	"cmp"
	"context"
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/exit"
)

// A loop is the event loop of a session: it waits for the end of the command,
// and acts on signals, the detach keys, the time limit and events of the start.
type loop struct {
	*Session
	process *api.Process // of the current connection
	ready   bool         // the daemon has started the command
	ends    int          // number of signals so far that asked for an end
	code    int          // exit code if the machine was made to end, else 0
	final   bool         // code is the exit code even if the command ends with another one
	limit   <-chan time.Time
	stops   sync.WaitGroup // requests that end the machine

	input    *input          // nil for none
	detached <-chan struct{} // closed after the detach keys
	gone     <-chan struct{} // closed when the user's terminal is gone
}

// wait returns true when the command has ended. It returns false when the user
// has left it, with the error that ends banger.
func (l *loop) wait(ctx context.Context, signals <-chan os.Signal) (ended bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer l.stops.Wait()
	defer cancel() // the requests that still wait for the machine's end
	for {
		select {
		case <-l.process.Done():
			return true, nil
		case <-l.detached:
			return false, l.leave(nil)
		case <-l.gone:
			return false, l.leaveHungUp()
		case <-l.limit:
			l.Env.Note("the time limit of %v is over", l.Timeout)
			l.code, l.final = exit.Timeout, true
			l.stop(ctx)
		case e := <-l.events:
			if err := l.event(ctx, e); err != nil {
				return false, errors.Join(err, l.leave(nil))
			}
		case sig := <-signals:
			number, ok := sig.(syscall.Signal)
			switch {
			case !ok:
			case l.hungUp(number):
				return false, l.leaveHungUp()
			case asksForEnd(number) && (l.NoSignals || l.Exec && l.ends > 1):
				return false, l.leave(exit.BySignal(int(number)))
			default:
				l.signal(ctx, number)
			}
		}
	}
}

// leave closes the connection and lets the command run on. It returns result
// unless the connection cannot be closed.
func (l *loop) leave(result error) error {
	if err := l.process.Close(); err != nil {
		return err
	}
	l.term.release() // before the note, which needs the terminal's line endings
	if !l.Exec {
		l.Env.Note("the machine goes on: banger attach %s comes back", l.name())
	}
	return result
}

// name returns the machine's name for messages.
func (l *loop) name() string { return cmp.Or(l.Name, l.Machine) }

// event records the ID of the machine and that it is ready. It returns the
// error of OnReady.
func (l *loop) event(ctx context.Context, e api.Event) error {
	if e.Machine != nil {
		l.Machine, l.Name = e.Machine.ID, cmp.Or(l.Name, e.Machine.Name)
		if l.ends > 0 {
			l.abort(ctx)
		}
	}
	if !e.Ready {
		return nil
	}
	l.ready = true
	if l.Timeout > 0 {
		l.limit = time.After(l.Timeout)
	}
	if l.OnReady == nil {
		return nil
	}
	return l.OnReady(l.Machine)
}

// outcome returns the error that ends banger after the end of the command: nil
// for the exit code 0.
func (l *loop) outcome(ctx context.Context) error {
	result, err := l.process.Wait()
	_, reported := errors.AsType[*api.Error](err)
	switch {
	case l.final:
		return exit.Error(l.code)
	case l.ends > 0 && !l.ready:
		return &exit.CodedError{Code: exit.Own, Err: cmp.Or(ctx.Err(), errors.New("interrupted"))}
	case err == nil && result.Error == "":
		return exit.With(result.Code)
	case l.code != 0:
		return exit.Error(l.code)
	case err == nil:
		return &exit.CodedError{Code: cmp.Or(result.Code, exit.Own), Err: errors.New(result.Error)}
	case l.lost():
		return &LostError{l.name(), err}
	case l.Exec && errors.Is(err, api.ErrLost):
		return l.execFate(ctx, err)
	case l.lostTerminal(err):
		return exit.BySignal(int(syscall.SIGHUP)) // the machine goes on
	case reported || l.streams.Event == nil:
		return err
	}
	// An output stream is closed, so stop the machine that was started for it.
	return errors.Join(err, l.Daemon.Stop(context.WithoutCancel(ctx), l.Machine, api.StopRequest{}))
}
