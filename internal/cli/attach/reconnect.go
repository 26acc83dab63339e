package attach

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/exit"
)

// A LostError reports that the connection to a machine's command is lost, because
// the daemon has ended, while the command keeps running.
type LostError struct {
	Machine string // as the user names it
	Err     error
}

func (e *LostError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *LostError) Unwrap() error { return e.Err }

// HasEnded reports whether the daemon refused a request because the machine
// does not run, or does not exist any more.
func HasEnded(err error) bool {
	wire, ok := errors.AsType[*api.Error](err)
	return ok && (wire.Code == api.CodeNotRunning || wire.Code == api.CodeNotFound)
}

// lost reports whether the daemon has ended while the machine keeps running.
func (l *loop) lost() bool {
	_, err := l.process.Wait()
	return errors.Is(err, api.ErrLost) && l.ready && !l.final && !l.Exec
}

// execFate returns the error for an exec whose connection is lost, with the fate of
// its command: the machine hangs up a command that has lost its client.
func (l *loop) execFate(ctx context.Context, lost error) error {
	ctx = context.WithoutCancel(ctx)
	daemon, err := l.Redial(ctx)
	if err != nil {
		return fmt.Errorf("%w: whether the command goes on is not known: %w", lost, err)
	}
	m, err := daemon.Inspect(ctx, l.Machine)
	switch {
	case HasEnded(err):
		return fmt.Errorf("%w: the machine has ended, and its command with it", lost)
	case err != nil:
		return fmt.Errorf("%w: whether the command goes on is not known: %w", lost, err)
	case m.State != api.StateRunning:
		return fmt.Errorf("%w: the machine has ended (%s), and its command with it", lost, cmp.Or(m.Error, fmt.Sprintf("exit code %d", m.ExitCode)))
	}
	return fmt.Errorf("%w: the machine goes on, and has hung up the command (SIGHUP)", lost)
}

// reconnect connects with the next daemon and returns a Begin that attaches to
// the machine again. The output that the command writes until then is in its
// log alone. If the machine has ended, the error carries its exit code.
func (l *loop) reconnect(ctx context.Context) (Begin, error) {
	ctx = context.WithoutCancel(ctx) // signals are for the command
	daemon, err := l.Redial(ctx)
	if err != nil {
		return nil, &LostError{l.name(), err}
	}
	l.Daemon = daemon
	m, err := daemon.Inspect(ctx, l.Machine)
	switch {
	case HasEnded(err): // and was removed after its end
		return nil, fmt.Errorf("the machine has ended while there was no daemon to tell its exit code: %w", err)
	case err != nil:
		return nil, &LostError{l.name(), err}
	case m.State != api.StateRunning && m.Error != "":
		return nil, &exit.CodedError{Code: cmp.Or(m.ExitCode, exit.Own), Err: errors.New(m.Error)}
	case m.State != api.StateRunning:
		return nil, exit.Error(m.ExitCode)
	}
	l.Env.Note("the daemon has ended: attached to the machine again, by another")
	return func(_ context.Context, streams api.Stdio) (*api.Process, error) {
		p, err := l.attach(ctx, m.ID, streams)
		if err != nil {
			return nil, &LostError{l.name(), err}
		}
		return p, nil
	}, nil
}

// begin calls a Begin, and again with the next daemon if the daemon ends before it
// answers. A start or a run is not begun twice, because it may have made a machine.
func (l *loop) begin(ctx context.Context, begin Begin, streams api.Stdio) (*api.Process, error) {
	for tries := 1; ; tries++ {
		p, err := begin(ctx, streams)
		const limit = 10
		if !api.IsLost(err) || l.streams.Event != nil || ctx.Err() != nil || tries == limit {
			return p, err
		}
		if l.Daemon, err = l.Redial(ctx); err != nil {
			return nil, err
		}
	}
}
