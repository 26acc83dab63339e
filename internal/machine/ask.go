package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"syscall"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/base/unixsocket"
	"github.com/banger-vm/banger/internal/machine/ledger"
	"github.com/banger-vm/banger/internal/machine/ledger/resource"
)

// ask sends a machine's supervisor a request. The end of ctx ends the stream.
// The error is ErrNotRunning where there is no supervisor.
func (s *Store) ask(ctx context.Context, id string, r *request) (*frames.Conn, error) {
	raw, err := s.reach(ctx, id)
	if err != nil {
		return nil, err
	}
	conn := frames.New(raw)
	if err := conn.SendJSON(frames.Request, r); err != nil {
		return nil, errors.Join(fmt.Errorf("ask supervisor of machine %s: %w", id, err), conn.Close())
	}
	return conn, nil
}

// reach connects with a supervisor. One that has just been started may take a
// moment to listen.
func (s *Store) reach(ctx context.Context, id string) (net.Conn, error) {
	const (
		patience = 10 * time.Second
		every    = 10 * time.Millisecond
	)
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		conn, err := unixsocket.In(s.runtimeDir(id), controlFile, func(path string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(limited, "unix", path)
		})
		gone := errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
		switch {
		case err == nil:
			return conn, nil
		case gone && !s.running(id):
			return nil, fmt.Errorf("machine %s: %w", id, ErrNotRunning)
		case !gone:
			return nil, fmt.Errorf("reach supervisor of machine %s: %w", id, err)
		}
		select {
		case <-limited.Done():
			return nil, fmt.Errorf("reach supervisor of machine %s: %w", id, limited.Err())
		case <-tick.C:
		}
	}
}

// answerTo sends a request and waits for its answer, into v where that is not
// nil. An exit code is an answer too.
func (s *Store) answerTo(ctx context.Context, id string, r *request, v any) error {
	conn, err := s.ask(ctx, id, r)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	frame, err := conn.Next()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("wait for supervisor of machine %s: %w", id, err)
	case frame.Kind == frames.Error:
		failure := new(api.Error)
		return errors.Join(frame.JSON(failure), failure)
	case v == nil:
		return nil
	}
	return frame.JSON(v)
}

// Stop ends a machine that runs: its main command gets its stop signal, and
// SIGKILL when grace has passed; then the machine powers off, or is killed. It
// returns when the machine's supervisor is gone too. A machine that does not
// run is no error; its policy starts it no more.
func (s *Store) Stop(ctx context.Context, id string, grace time.Duration) error {
	milliseconds := grace.Milliseconds()
	err := s.answerTo(ctx, id, &request{Stop: &milliseconds}, nil)
	if errors.Is(err, ErrNotRunning) {
		return s.rest(ctx, id)
	}
	if err = endedMeanwhile(err); err != nil {
		return err
	}
	return s.waitUnlocked(ctx, id)
}

// rest records that a user has stopped a machine that does not run, where its
// policy would start it: its supervisor may have been killed a moment ago.
func (s *Store) rest(ctx context.Context, id string) error {
	dir, err := s.claim(ctx, id)
	if err != nil {
		return err
	}
	defer dir.unlock()
	rec, err := readRecord(dir.data)
	if err != nil || rec.State == StateCreated || rec.Stopped || !rec.revives() {
		return err
	}
	rec.stop()
	return rec.write(dir.data)
}

// endedMeanwhile takes it as an answer that a supervisor asked for the end has
// gone without one.
func endedMeanwhile(err error) error {
	if errors.Is(err, ErrNotRunning) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	return err
}

// Kill sends a running machine's main command a signal, a name or a number.
// KILL, which "" is too, ends the machine as pulling its plug would, and is
// waited for. The error is ErrNotRunning where the machine does not run.
func (s *Store) Kill(ctx context.Context, id, signal string) error {
	var exit api.Exit
	err := s.answerTo(ctx, id, &request{Kill: &signal}, &exit)
	if err != nil && (errors.Is(err, ErrNotRunning) || endedMeanwhile(err) != nil) {
		return err
	}
	if exit == (api.Exit{}) { // the answer to a signal that need not end it
		return nil
	}
	return s.waitUnlocked(ctx, id)
}

// Wait waits for a machine's end and returns how it ended: at once where it
// does not run.
func (s *Store) Wait(ctx context.Context, id string) (api.Exit, error) {
	var exit api.Exit
	err := s.answerTo(ctx, id, &request{Wait: true}, &exit)
	if err == nil {
		return exit, s.waitUnlocked(ctx, id)
	}
	if endedMeanwhile(err) != nil {
		return exit, err
	}
	if err := s.waitUnlocked(ctx, id); err != nil {
		return exit, err
	}
	rec, err := s.Find(id)
	if err != nil {
		return exit, err
	}
	return api.Exit{Code: rec.ExitCode, Error: rec.Error}, nil
}

// waitUnlocked waits until a supervisor that is through has let go of its
// machine.
func (s *Store) waitUnlocked(ctx context.Context, id string) error {
	const (
		patience = 10 * time.Second
		every    = 2 * time.Millisecond
	)
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("machine %s: its supervisor does not end", id))
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for s.running(id) {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}

// Exec runs a further command in a running machine. The stream has an Event
// frame when it has been started, its outputs and its Exit, or an Error frame;
// it takes Stdin, CloseStdin, Signal and Resize.
func (s *Store) Exec(ctx context.Context, id string, r api.ExecRequest) (*frames.Conn, error) {
	return s.ask(ctx, id, &request{Exec: &r})
}

// Attach connects with a running machine's main command, as Exec with a new
// one.
func (s *Store) Attach(ctx context.Context, id string, r api.AttachRequest) (*frames.Conn, error) {
	return s.ask(ctx, id, &request{Attach: &r})
}

// Archive copies files out of a running machine or into it: a tar stream on
// the output or the input of the stream.
func (s *Store) Archive(ctx context.Context, id string, r api.ArchiveRequest) (*frames.Conn, error) {
	return s.ask(ctx, id, &request{Archive: &r})
}

// Stats returns what a running machine uses.
func (s *Store) Stats(ctx context.Context, id string) (api.Stats, error) {
	var stats api.Stats
	return stats, s.answerTo(ctx, id, &request{Stats: true}, &stats)
}

// renameRunning gives a running machine another name. The caller knows that
// nobody has it.
func (s *Store) renameRunning(ctx context.Context, rec *Record, name string) error {
	return s.answerTo(ctx, rec.ID, &request{Rename: name}, nil)
}

// WaitGone waits until the supervisor of a machine is gone, however it ended.
// That there is none is no error.
func (s *Store) WaitGone(ctx context.Context, id string) error {
	rec, err := readRecord(s.dataDir(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	e, err := s.supervisorEntry(rec)
	if err != nil || e == nil {
		return err
	}
	return resource.WaitEnd(ctx, *e)
}

// Supervisor is the number of the process that supervises a machine, as its
// ledger has it, or 0.
func (s *Store) Supervisor(rec *Record) int {
	if e, err := s.supervisorEntry(rec); err == nil && e != nil {
		return e.PID
	}
	return 0
}

// supervisorEntry is what the ledger has of a machine's supervisor, nil for
// nothing.
func (s *Store) supervisorEntry(rec *Record) (*ledger.Entry, error) {
	entries, _, err := ledger.Read(s.dataDir(rec.ID), rec.ID, rec.Runtime)
	if err != nil {
		return nil, fmt.Errorf("look for supervisor of machine %s: %w", rec.ID, err)
	}
	for _, e := range entries {
		if e.Kind == ledger.Process && e.Name == supervisorPart && e.PID != 0 {
			return &e, nil
		}
	}
	return nil, nil //nolint:nilnil // there is none, as documented
}
