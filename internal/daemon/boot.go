package daemon

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/machine/control"
	"github.com/banger-vm/banger/internal/machine/record"
)

// A starter boots machines, for requests and by their restart policies.
type starter struct {
	machines machines
	convert  *converter
	locks    *machineLocks
	watcher  *watcher
	idle     *idleTimer
	quit     *quitSignal
	log      *slog.Logger
}

// boot starts a machine and waits until it is ready.
func (s *starter) boot(ctx context.Context, id string, l control.Launch) error {
	supervisor, err := s.machines.Start(ctx, id, l)
	if err != nil {
		return err
	}
	return s.awaitReady(id, supervisor)
}

// awaitReady waits until a machine that is starting is ready, or until its start
// has failed.
func (s *starter) awaitReady(id string, supervisor *frames.Conn) error {
	defer supervisor.Close()
	defer s.quit.closeOnRequest(supervisor)()
	err := readStart(supervisor, func(frames.Frame) {})
	// Also after an error: if the supervisor was killed, it has released nothing.
	s.watcher.watch(id)
	return err
}

// readStart reads the frames of a supervisor until the machine is ready, and calls
// forward with each. It returns the error in an Error frame without a call of
// forward.
func readStart(supervisor *frames.Conn, forward func(frames.Frame)) error {
	for {
		f, err := supervisor.Next()
		if err != nil {
			return &api.Error{Code: api.CodeFailed, Message: "start machine: its supervisor ended; supervisor.log in its folder may say why"}
		}
		if f.Kind == frames.Error {
			e := new(api.Error)
			if err := f.JSON(e); err != nil {
				return err
			}
			return e
		}
		forward(f)
		if f.Kind == frames.Exit { // the machine was ready and has ended
			return nil
		}
		var e api.Event
		if f.Kind != frames.Event {
			continue
		}
		if err := f.JSON(&e); err != nil {
			return err
		}
		if e.Ready {
			return nil
		}
	}
}

// A startStream is the stream of a client that follows a start.
type startStream struct {
	id            string      // of the machine
	unlock        func()      // releases the machine's lock
	events        []api.Event // sent before the events of the supervisor
	removeOnClose bool        // the machine goes if the client disconnects before it is ready
}

// stream makes the connection of a request a stream and passes frames between
// the client and the supervisor. If the client disconnects before the machine is
// ready, the start continues and stream waits for its end, unless
// removeOnClose is set.
func (s *starter) stream(w http.ResponseWriter, supervisor *frames.Conn, stream *startStream) error {
	client, err := upgrade(w)
	if err != nil {
		if stream.removeOnClose {
			return errors.Join(err, supervisor.Close())
		}
		return errors.Join(err, s.awaitReady(stream.id, supervisor))
	}
	defer client.Close()
	defer supervisor.Close()
	defer s.quit.closeOnRequest(client, supervisor)()
	// The errors of sends to the client are of no use: copyFrames sees that the
	// client has disconnected.
	for _, e := range stream.events {
		_ = client.SendJSON(frames.Event, e)
	}
	var input sync.WaitGroup
	defer input.Wait()
	defer client.Close()
	disconnected := make(chan struct{})
	input.Go(func() {
		defer close(disconnected)
		copyFrames(supervisor, client)
		if stream.removeOnClose {
			supervisor.Close()
		}
	})
	err = readStart(supervisor, func(f frames.Frame) { _ = client.Send(f.Kind, f.Payload) })
	s.watcher.watch(stream.id) // also after an error, as in awaitReady
	if err != nil {
		_ = client.SendJSON(frames.Error, control.WireError(err))
		return err
	}
	stream.unlock()
	input.Go(func() {
		<-disconnected
		supervisor.Close()
	})
	copyFrames(client, supervisor)
	return nil
}

// restartByPolicy boots a machine without a supervisor if its policy requires it,
// and logs an error.
func (s *starter) restartByPolicy(ctx context.Context, id string) {
	s.idle.begin()
	defer s.idle.end()
	if err := s.bootByPolicy(ctx, id); err != nil && ctx.Err() == nil {
		s.log.Error("start machine again", "machine", id, "error", err)
	}
}

// bootByPolicy boots a machine if its policy still requires it when bootByPolicy
// has the machine's lock: another request may have stopped, removed or started the
// machine.
func (s *starter) bootByPolicy(ctx context.Context, id string) error {
	unlock, err := s.locks.lock(ctx, lockRequest{id, id, "start", 0})
	if err != nil {
		return err
	}
	defer unlock()
	if wanted, err := s.machines.RepairMachine(ctx, id); err != nil || !wanted {
		return err
	}
	l, err := s.convert.launch(api.StartRequest{})
	if err != nil {
		return err
	}
	return s.boot(ctx, id, l)
}

// holdFiles boots a machine for its files, unless it has booted for them or runs.
// The machine stays up until the caller closes hold.
func (s *starter) holdFiles(ctx context.Context, rec *record.Record) (hold io.Closer, err error) {
	unlock, err := s.lockForStart(ctx, rec)
	if err != nil {
		return nil, err
	}
	defer unlock()
	hold, err = s.machines.HoldFiles(ctx, rec.ID)
	if errors.Is(err, record.ErrNotRunning) {
		var l control.Launch
		if l, err = s.convert.launch(api.StartRequest{}); err != nil {
			return nil, err
		}
		l.Files = true
		if err := s.boot(ctx, rec.ID, l); err != nil {
			return nil, err
		}
		hold, err = s.machines.HoldFiles(ctx, rec.ID)
	}
	if errors.Is(err, record.ErrRunning) { // it was started in the meantime
		return io.NopCloser(nil), nil
	}
	return hold, err
}
