package control

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
	"github.com/banger-vm/banger/internal/base/poll"
	"github.com/banger-vm/banger/internal/base/unixsocket"
	"github.com/banger-vm/banger/internal/machine/record"
)

// A Client sends requests to the supervisors of the machines in Root.
type Client struct{ Root *record.Root }

// Open sends a request to a machine's supervisor and returns the stream of its
// answer, which the caller closes. The end of ctx does not end the stream. The
// error is record.ErrNotRunning if there is no supervisor.
func (c Client) Open(ctx context.Context, id string, r *Request) (*frames.Conn, error) {
	raw, err := c.dialSupervisor(ctx, id)
	if err != nil {
		return nil, err
	}
	conn := frames.New(raw)
	if err := conn.SendJSON(frames.Request, r); err != nil {
		return nil, errors.Join(fmt.Errorf("ask supervisor of machine %s: %w", id, err), conn.Close())
	}
	return conn, nil
}

// dialSupervisor connects to a supervisor. It retries for a while, because a
// supervisor that has just been started may not listen yet.
func (c Client) dialSupervisor(ctx context.Context, id string) (conn net.Conn, err error) {
	const (
		patience = 10 * time.Second
		interval = 10 * time.Millisecond
	)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = poll.Until(ctx, interval, func() (bool, error) {
		var dialErr error
		conn, dialErr = dialSocket(ctx, c.Root.RuntimeDir(id), SocketFile)
		switch {
		case !isAbsent(dialErr):
			return true, dialErr
		case !c.Root.IsLocked(id):
			return false, record.ErrNotRunning
		}
		return false, nil
	})
	if errors.Is(err, record.ErrNotRunning) {
		return nil, fmt.Errorf("machine %s: %w", id, err)
	}
	if err != nil {
		return nil, fmt.Errorf("reach supervisor of machine %s: %w", id, err)
	}
	return conn, nil
}

// dialSocket connects to a socket in a machine's runtime folder dir.
func dialSocket(ctx context.Context, dir, name string) (net.Conn, error) {
	return unixsocket.In(dir, name, func(path string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	})
}

// isAbsent reports whether a connection failed because no process listens.
func isAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// Do sends a request, waits for its answer and decodes it into v, if v is not
// nil. An exit code is an answer, too.
func (c Client) Do(ctx context.Context, id string, r *Request, v any) error {
	conn, err := c.Open(ctx, id, r)
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
		if err := frame.JSON(failure); err != nil {
			return err
		}
		if failure.Code == api.CodeNotRunning {
			return fmt.Errorf("machine %s: %w", id, record.ErrNotRunning)
		}
		return failure
	case v == nil:
		return nil
	}
	return frame.JSON(v)
}

// Dial connects to the SSH server of a running machine's agent. The error
// is record.ErrNotRunning if the machine does not run.
func (c Client) Dial(ctx context.Context, rec *record.Record) (net.Conn, error) {
	conn, err := dialSocket(ctx, c.Root.RuntimeDir(rec.ID), SSHFile)
	if isAbsent(err) {
		return nil, fmt.Errorf("machine %s: %w", rec.Config.Name, record.ErrNotRunning)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to machine %s: %w", rec.Config.Name, err)
	}
	return conn, nil
}

// Exec runs a further command in a running machine. The stream carries an Event
// frame when the command has started, its outputs and its Exit, or an Error
// frame. It takes Stdin, CloseStdin, Signal and Resize frames. Before that, it
// carries an Answer frame if the caller may call PassClient. A caller that does
// not call it gets nothing more.
func (c Client) Exec(ctx context.Context, id string, r api.ExecRequest) (*frames.Conn, error) {
	return c.Open(ctx, id, &Request{Exec: &r, Pass: true})
}

// Attach connects to a running machine's main command. The stream is as Exec's.
func (c Client) Attach(ctx context.Context, id string, r api.AttachRequest) (*frames.Conn, error) {
	return c.Open(ctx, id, &Request{Attach: &r, Pass: true})
}

// Archive copies files out of a machine or into it. The machine runs or is held by
// HoldFiles. The stream carries a tar archive on its output or its input.
func (c Client) Archive(ctx context.Context, id string, r api.ArchiveRequest) (*frames.Conn, error) {
	return c.Open(ctx, id, &Request{Archive: &r, Pass: true})
}

// HoldFiles keeps a machine up that booted only for its files, until the caller
// closes the connection. The error is record.ErrNotRunning if the machine has not
// booted, and record.ErrRunning if it runs.
func (c Client) HoldFiles(ctx context.Context, id string) (io.Closer, error) {
	conn, err := c.Open(ctx, id, &Request{HoldFiles: true})
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	frame, err := conn.Next()
	switch {
	case err == nil && frame.Kind == frames.Answer:
		return conn, nil
	case err == nil && frame.Kind == frames.Error:
		failure := new(api.Error)
		if err = frame.JSON(failure); failure.Code == api.CodeRunning {
			err = record.ErrRunning
		} else if err == nil && failure.Code != api.CodeNotRunning {
			err = failure
		}
	}
	if err == nil || errors.Is(err, io.EOF) { // it has ended in the meantime
		err = record.ErrNotRunning
	}
	return nil, errors.Join(fmt.Errorf("machine %s: %w", id, err), conn.Close())
}

// Paused returns why a running machine stands still, or "" if it runs or its
// supervisor does not answer within a moment.
func (c Client) Paused(ctx context.Context, id string) string {
	const moment = time.Second
	ctx, cancel := context.WithTimeout(ctx, moment)
	defer cancel()
	var status Status
	if err := c.Do(ctx, id, &Request{Status: true}, &status); err != nil {
		return ""
	}
	return status.Paused
}

// Stats returns a running machine's use of resources.
func (c Client) Stats(ctx context.Context, id string) (api.Stats, error) {
	var stats api.Stats
	return stats, c.Do(ctx, id, &Request{Stats: true}, &stats)
}
