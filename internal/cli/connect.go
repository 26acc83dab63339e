package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/flock"
	"github.com/banger-vm/banger/internal/base/poll"
	"github.com/banger-vm/banger/internal/daemon"
	"github.com/banger-vm/banger/internal/machine"
)

// Bounds of finding a daemon.
const (
	answerTime    = 10 * time.Second // for a daemon to say what it is
	startTime     = 10 * time.Second // for one to start, or to end
	startEvery    = 10 * time.Millisecond
	onDemandIdle  = 5 * time.Minute // that a daemon which was started so stays without work
	maxDaemonLog  = 1 << 20         // bytes; a larger one is begun anew
	daemonLogName = "daemon.log"
)

// daemon returns a client of the daemon, which is started if need be. One of
// another version is used as it is, unless it speaks another protocol: then
// it is replaced, and its machines stay.
func (a *app) daemon(ctx context.Context) (*api.Client, error) {
	machines, err := machine.Open(a.paths.Data, a.paths.Runtime)
	if err != nil {
		return nil, err
	}
	f := &finder{app: a, dir: machines.Runtime()}
	f.client = a.daemonClient(f.dir)
	info, found, err := f.probe(ctx)
	if err != nil {
		return nil, err
	}
	if found && info.API == api.Version {
		return f.client, nil
	}
	// Of several commands at once one starts it.
	unlock, err := flock.LockFile(ctx, filepath.Join(f.dir, "daemon.start"))
	if err != nil {
		return nil, fmt.Errorf("start daemon: %w", err)
	}
	defer unlock()
	if err := f.replace(ctx); err != nil {
		return nil, err
	}
	return f.client, nil
}

func (a *app) daemonClient(dir string) *api.Client {
	return &api.Client{Socket: daemon.SocketPath(dir), Program: "banger/" + a.version}
}

// A finder looks for the daemon of one folder.
type finder struct {
	app    *app
	dir    string
	client *api.Client
}

// probe asks who listens. It is no error when nobody does.
func (f *finder) probe(ctx context.Context) (info api.Info, found bool, err error) {
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
	case errors.Is(err, api.ErrUnreachable), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return info, false, nil // the last three: it was about to end
	}
	return info, false, err
}

// replace starts a daemon of this program where none listens, or one that
// speaks another protocol.
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
	f.app.note("the daemon is banger %s, which speaks another protocol: it is replaced, and its machines stay", old.Version)
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

// until probes until the answer is the one wanted.
func (f *finder) until(ctx context.Context, wanted func(api.Info, bool) bool) (info api.Info, found bool, err error) {
	err = waitDaemon(ctx, func(ctx context.Context) (bool, error) {
		info, found, err = f.probe(ctx)
		return err == nil && wanted(info, found), err
	})
	return info, found, err
}

// waitDaemon calls done until it reports true, for at most startTime. It returns an
// error of done one interval later, since the end of ctx may explain it better.
func waitDaemon(ctx context.Context, done func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTime, fmt.Errorf("not done within %v", startTime))
	defer cancel()
	var failure error
	return poll.Until(ctx, startEvery, func() (ok bool, err error) {
		if failure != nil {
			return false, failure
		}
		ok, failure = done(ctx)
		return ok, nil
	})
}

// start starts a daemon that outlives this command, and waits until it
// listens.
func (f *finder) start(ctx context.Context) error {
	log, err := openDaemonLog(f.dir)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd, err := f.app.daemonProcess(log)
	if err != nil {
		return err
	}
	begin, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("open daemon log: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start daemon: %w", err)
	}
	limited, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { // ends with the daemon, or with this command
		err := cmd.Wait()
		cancel(fmt.Errorf("it ended (%w)", errors.Join(err, lastLine(log, begin))))
	}()
	if _, _, err := f.until(limited, func(_ api.Info, found bool) bool { return found }); err != nil {
		if ctx.Err() == nil && limited.Err() != nil {
			err = context.Cause(limited)
		}
		return fmt.Errorf("start daemon: %w; see %s", err, log.Name())
	}
	return nil
}

// daemonProcess returns the command of a daemon that is no part of this
// command's session: a Ctrl-C in the terminal is not for it.
func (a *app) daemonProcess(log *os.File) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find banger: %w", err)
	}
	// It outlives this command and its context.
	cmd := exec.CommandContext(context.Background(), self, //nolint:gosec // this program
		"--data-root", a.paths.Data, "daemon", "--idle-timeout", onDemandIdle.String())
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd, nil
}

func openDaemonLog(dir string) (*os.File, error) {
	path := filepath.Join(dir, daemonLogName)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open daemon log: %w", err)
	}
	info, err := f.Stat()
	if err == nil && info.Size() > maxDaemonLog {
		err = f.Truncate(0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open daemon log: %w", err), f.Close())
	}
	return f, nil
}

// lastLine is what a daemon said last, from the offset begin of its log on.
func lastLine(log io.ReaderAt, begin int64) error {
	const most = 4 << 10 // bytes
	text := make([]byte, most)
	n, err := log.ReadAt(text, begin)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	said := bytes.TrimSpace(text[:n])
	if i := bytes.LastIndexByte(said, '\n'); i >= 0 {
		said = said[i+1:]
	}
	if len(said) == 0 {
		return nil
	}
	return errors.New(strings.TrimPrefix(string(said), "banger: "))
}

// runningDaemon returns what the daemon says of itself, or nil where none
// runs.
func (a *app) runningDaemon(ctx context.Context) (*api.Info, error) {
	f, err := a.findServed()
	if err != nil || f == nil {
		return nil, err
	}
	info, found, err := f.probe(ctx)
	if err != nil || !found {
		return nil, err
	}
	return &info, nil
}

// findServed is nil where no daemon lives. It starts none, and makes nothing.
func (a *app) findServed() (*finder, error) {
	if _, err := os.Stat(filepath.Join(a.paths.Data, "machines")); err != nil {
		return nil, nil //nolint:nilerr,nilnil // without that folder there is no daemon
	}
	machines, err := machine.Open(a.paths.Data, a.paths.Runtime)
	if err != nil {
		return nil, err
	}
	f := &finder{app: a, dir: machines.Runtime(), client: a.daemonClient(machines.Runtime())}
	if served, err := daemon.Served(f.dir); err != nil || !served {
		return nil, err
	}
	return f, nil
}
