package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/poll"
	"github.com/banger-vm/banger/internal/machine/control"
	"github.com/banger-vm/banger/internal/machine/record"
)

// Stop ends a running machine: the main command gets its stop signal, and
// SIGKILL after grace; then the machine powers off, or is killed. Stop returns
// when the machine's supervisor has ended, too. If the machine does not run,
// Stop keeps its policy from starting it, and returns nil.
func (s *Store) Stop(ctx context.Context, id string, grace time.Duration) error {
	milliseconds := grace.Milliseconds()
	err := s.Do(ctx, id, &control.Request{Stop: &milliseconds}, nil)
	if errors.Is(err, record.ErrNotRunning) {
		return s.keepStopped(ctx, id)
	}
	if err = ignoreEnded(err); err != nil {
		return err
	}
	return s.waitUnlocked(ctx, id)
}

// keepStopped records that a user has stopped a machine that does not run, if
// its policy would start it: its supervisor may have been killed a moment ago.
func (s *Store) keepStopped(ctx context.Context, id string) error {
	dir, err := claim(ctx, s.Client, id)
	if err != nil {
		return err
	}
	defer dir.Unlock()
	rec, err := record.Read(dir.Data)
	if err != nil || rec.State == record.StateCreated || rec.Stopped || !rec.RestartsByDaemon() {
		return err
	}
	rec.MarkStopped()
	return rec.Write(dir.Data)
}

// ignoreEnded returns nil if err means that the supervisor ended without an
// answer, because its machine has ended.
func ignoreEnded(err error) error {
	if errors.Is(err, record.ErrNotRunning) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	return err
}

// Kill sends a running machine's main command a signal, by name or by number.
// KILL, the default, ends the machine as pulling its plug would, and Kill waits
// for that. The error is record.ErrNotRunning if the machine does not run.
func (s *Store) Kill(ctx context.Context, id, signal string) error {
	var exit api.Exit
	err := s.Do(ctx, id, &control.Request{Kill: &signal}, &exit)
	if err != nil && (errors.Is(err, record.ErrNotRunning) || ignoreEnded(err) != nil) {
		return err
	}
	if exit == (api.Exit{}) { // the answer to a signal that the machine may survive
		return nil
	}
	return s.waitUnlocked(ctx, id)
}

// Wait waits for a machine's end and returns how it ended. It returns at once
// if the machine does not run.
func (s *Store) Wait(ctx context.Context, id string) (api.Exit, error) {
	var exit api.Exit
	err := s.Do(ctx, id, &control.Request{Wait: true}, &exit)
	if err == nil {
		return exit, s.waitUnlocked(ctx, id)
	}
	if ignoreEnded(err) != nil {
		return exit, err
	}
	if !errors.Is(err, record.ErrNotRunning) { // else a process that copies its files may hold it
		if err := s.waitUnlocked(ctx, id); err != nil {
			return exit, err
		}
	}
	rec, err := s.Find(id)
	if err != nil {
		return exit, err
	}
	return api.Exit{Code: rec.ExitCode, Error: rec.Error}, nil
}

// waitUnlocked waits until a supervisor whose machine has ended has unlocked it.
func (s *Store) waitUnlocked(ctx context.Context, id string) error {
	const (
		patience = 10 * time.Second
		interval = 2 * time.Millisecond
	)
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("machine %s: its supervisor does not end", id))
	defer cancel()
	return poll.Until(ctx, interval, func() (bool, error) { return !s.root.IsLocked(id), nil })
}
