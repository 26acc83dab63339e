// Package connect connects a command with the user's daemon. It starts a
// daemon if none runs, and replaces one that speaks another protocol.
package connect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/flock"
	"github.com/banger-vm/banger/internal/base/poll"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/daemon"
	"github.com/banger-vm/banger/internal/machine"
)

const (
	answerTime   = 10 * time.Second // for a daemon to answer a request
	changeTime   = 10 * time.Second // for a daemon to start or to end
	pollInterval = 10 * time.Millisecond
)

// OnDemandIdle is the time without requests after which a daemon ends that a
// command has started.
const OnDemandIdle = 5 * time.Minute

// Daemon returns a client of the daemon, and starts a daemon if none runs. A
// daemon of another version that speaks the same protocol is used as it is.
// One that speaks another protocol is replaced, and its machines keep running.
func Daemon(ctx context.Context, e *env.Env) (*api.Client, error) {
	f, err := open(e)
	if err != nil {
		return nil, err
	}
	info, found, err := f.probe(ctx)
	if err != nil {
		return nil, err
	}
	if found && info.API == api.Version {
		return f.client, nil
	}
	// If several commands get here at once, one of them starts the daemon.
	unlock, err := flock.LockFile(ctx, filepath.Join(e.Paths.Data, "daemon.start"))
	if err != nil {
		return nil, fmt.Errorf("start daemon: %w", err)
	}
	defer unlock()
	if err := f.replace(ctx); err != nil {
		return nil, err
	}
	return f.client, nil
}

// Running returns the description that the daemon gives of itself, or nil if
// no daemon runs.
func Running(ctx context.Context, e *env.Env) (*api.Info, error) {
	f, err := findServed(e)
	if err != nil || f == nil {
		return nil, err
	}
	info, found, err := f.probe(ctx)
	if err != nil || !found {
		return nil, err
	}
	return &info, nil
}

// Stop ends the daemon, if one runs, and waits until it has ended.
func Stop(ctx context.Context, e *env.Env) error {
	f, err := findServed(e)
	if err != nil || f == nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	err = f.client.Shutdown(limited)
	if err == nil || errors.Is(err, api.ErrUnreachable) { // a daemon that was about to end is unreachable
		err = wait(ctx, func(context.Context) (bool, error) {
			_, served, err := daemon.Served(e.Paths.Data)
			return !served, err
		})
	}
	if err != nil {
		return fmt.Errorf("end the daemon: %w", err)
	}
	return nil
}

// Socket returns the path of the daemon's socket. It makes the socket's folder.
func Socket(e *env.Env) (string, error) {
	f, err := open(e)
	if err != nil {
		return "", err
	}
	return f.client.Socket, nil
}

// A finder finds, starts and replaces the daemon of one data folder.
type finder struct {
	env    *env.Env
	dir    string // the runtime folder: socket and log of a daemon that this process starts
	client *api.Client
}

// open returns the finder of the data folder and makes the folders of
// machines.
func open(e *env.Env) (*finder, error) {
	machines, err := machine.Open(e.Paths.Data, e.Paths.Runtime)
	if err != nil {
		return nil, err
	}
	dir := machines.Runtime()
	client := &api.Client{Socket: daemon.SocketPath(dir), Program: "banger/" + e.Version}
	return &finder{env: e, dir: dir, client: client}, nil
}

// findServed returns nil if no daemon runs. It starts no daemon and makes no
// folder.
func findServed(e *env.Env) (*finder, error) {
	if !exists(filepath.Join(e.Paths.Data, "machines")) { // the folder that open makes
		return nil, nil
	}
	f, err := open(e)
	if err != nil {
		return nil, err
	}
	socket, served, err := daemon.Served(e.Paths.Data)
	if err != nil || !served {
		return nil, err
	}
	f.client.Socket = cmp.Or(socket, f.client.Socket)
	return f, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// locate sets the socket of the client to that of the daemon that serves the data
// folder. A daemon that was started with another environment has another runtime folder.
func (f *finder) locate() error {
	socket, _, err := daemon.Served(f.env.Paths.Data)
	f.client.Socket = cmp.Or(socket, daemon.SocketPath(f.dir))
	return err
}

// probe asks the daemon for its description. found is false if no daemon
// answers on the socket, which is no error.
func (f *finder) probe(ctx context.Context) (info api.Info, found bool, err error) {
	if err := f.locate(); err != nil {
		return info, false, err
	}
	limited, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	info, err = f.client.Info(limited)
	switch {
	case err == nil:
		return info, true, nil
	case ctx.Err() != nil:
		return info, false, ctx.Err()
	case errors.Is(err, context.DeadlineExceeded):
		return info, false, fmt.Errorf("the daemon does not answer on %s", f.client.Socket)
	case errors.Is(err, api.ErrUnreachable):
		return info, false, nil
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return info, false, nil // the daemon was about to end
	}
	return info, false, err
}

// replace starts a daemon of this program if none runs, or if the one that
// runs speaks another protocol.
func (f *finder) replace(ctx context.Context) error {
	old, found, err := f.probe(ctx)
	if err != nil {
		return err
	}
	if !found {
		return f.start(ctx)
	}
	if old.API == api.Version { // another command was quicker
		return nil
	}
	f.env.Note("the daemon is banger %s, which speaks another protocol: it is replaced, and its machines stay", old.Version)
	if err := f.client.Shutdown(ctx); err != nil {
		return fmt.Errorf("end the daemon of banger %s: %w", old.Version, err)
	}
	next, found, err := f.until(ctx, func(info api.Info, found bool) bool { return !found || info.PID != old.PID })
	switch {
	case err != nil:
		return fmt.Errorf("end the daemon of banger %s: %w", old.Version, err)
	case !found:
		return f.start(ctx)
	case next.API != api.Version:
		return fmt.Errorf("the service manager starts the daemon of banger %s, which speaks another protocol: banger daemon install makes it start this one", next.Version)
	}
	return nil
}

// until probes the daemon until wanted accepts the result.
func (f *finder) until(ctx context.Context, wanted func(api.Info, bool) bool) (info api.Info, found bool, err error) {
	err = wait(ctx, func(ctx context.Context) (bool, error) {
		info, found, err = f.probe(ctx)
		return err == nil && wanted(info, found), err
	})
	return info, found, err
}

// wait calls done until it reports true, for at most changeTime. It returns an
// error of done one interval later, since the end of ctx may explain it better.
func wait(ctx context.Context, done func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, changeTime, fmt.Errorf("not done within %v", changeTime))
	defer cancel()
	var failure error
	return poll.Until(ctx, pollInterval, func() (ok bool, err error) {
		if failure != nil {
			return false, failure
		}
		ok, failure = done(ctx)
		return ok, nil
	})
}
