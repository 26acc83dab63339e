package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/banger-vm/banger/api"
)

// A lostError says that a machine's command goes on out of sight, since the
// daemon has ended.
type lostError struct {
	machine string
	error
}

func (e *lostError) Unwrap() error { return e.error }

// lost reports whether the daemon has ended while the machine goes on.
func (c *conductor) lost() bool {
	_, err := c.p.Wait()
	return errors.Is(err, api.ErrLost) && c.ready && !c.final && !c.further
}

// rejoin finds the next daemon, and returns what attaches to the machine
// again. What its command has written meanwhile is in its log alone.
func (c *conductor) rejoin(ctx context.Context) (beginning, error) {
	ctx = context.WithoutCancel(ctx) // signals are the command's
	daemon, err := c.reach(ctx)
	if err != nil {
		return nil, &lostError{c.machine, err}
	}
	c.daemon = daemon
	m, err := daemon.Inspect(ctx, c.machine)
	switch {
	case hasEnded(err): // and it was to be removed
		return nil, fmt.Errorf("the machine has ended while there was no daemon to tell its exit code: %w", err)
	case err != nil:
		return nil, &lostError{c.machine, err}
	case m.State != api.StateRunning && m.Error != "":
		return nil, &codedError{first(m.ExitCode, exitOwn), errors.New(m.Error)}
	case m.State != api.StateRunning:
		return nil, exitError(m.ExitCode)
	}
	c.note("the daemon has ended: attached to the machine again, by another")
	return func(_ context.Context, streams api.Stdio) (*api.Process, error) {
		p, err := daemon.Attach(ctx, m.ID, c.again, streams)
		if err != nil {
			return nil, &lostError{c.machine, err}
		}
		c.term.resized(p)
		return p, nil
	}, nil
}
