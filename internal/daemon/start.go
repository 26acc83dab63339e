package daemon

import (
	"context"
	"errors"
	"net/http"
	"sync"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/machine/control"
	"github.com/banger-vm/banger/internal/machine/record"
)

// start boots a machine. Without a stream it answers when the machine is ready. On a
// stream it sends the events of the start, and then attaches the client if the
// request asks for it.
func (s *server) start(w http.ResponseWriter, r *http.Request) error {
	var req api.StartRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	upgraded := wantsStream(r)
	if (req.Attach || req.Console) && !upgraded {
		return errNeedsStream()
	}
	l, err := s.launch(req)
	if err != nil {
		return err
	}
	rec, err := s.find(r)
	if err != nil {
		return err
	}
	unlock, err := s.locks.lock(r.Context(), lockRequest{rec.ID, rec.Config.Name, "start", 0})
	if err != nil {
		return err
	}
	defer unlock()
	supervisor, err := s.Machines.Start(r.Context(), rec.ID, l)
	if err != nil {
		return err
	}
	if upgraded {
		return s.streamStart(w, supervisor, &startStream{id: rec.ID, unlock: unlock})
	}
	if err := s.awaitReady(rec.ID, supervisor); err != nil {
		return err
	}
	if rec, err = s.Machines.Find(rec.ID); err != nil {
		return err
	}
	return answer(w, s.machine(rec))
}

// run makes a machine and boots it. If the start fails, or if the client disconnects
// before the machine is ready, the supervisor removes the machine.
func (s *server) run(w http.ResponseWriter, r *http.Request) error {
	var req api.RunRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if !wantsStream(r) {
		return errNeedsStream()
	}
	l, err := s.launch(req.Start)
	if err != nil {
		return err
	}
	o, err := s.createOptions(req.Create)
	if err != nil {
		return err
	}
	rec, warnings, supervisor, err := s.Machines.Run(r.Context(), o, l)
	if err != nil {
		return err
	}
	unlock, err := s.locks.lock(r.Context(), lockRequest{rec.ID, rec.Config.Name, "run", 0})
	if err != nil {
		return errors.Join(err, supervisor.Close())
	}
	defer unlock()
	machine := s.machine(rec)
	events := []api.Event{{Machine: &machine}}
	for _, text := range warnings {
		events = append(events, api.Event{Notice: text})
	}
	return s.streamStart(w, supervisor, &startStream{id: rec.ID, unlock: unlock, events: events, removeOnClose: true})
}

func (s *server) restart(w http.ResponseWriter, r *http.Request) error {
	grace, err := decodeGrace(w, r)
	if err != nil {
		return err
	}
	l, err := s.launch(api.StartRequest{})
	if err != nil {
		return err
	}
	return s.change(w, r, "restart", grace, func(ctx context.Context, rec *record.Record) error {
		if err := s.Machines.Stop(ctx, rec.ID, grace); err != nil {
			return err
		}
		return s.boot(ctx, rec.ID, l)
	})
}

// boot starts a machine and waits until it is ready.
func (s *server) boot(ctx context.Context, id string, l control.Launch) error {
	supervisor, err := s.Machines.Start(ctx, id, l)
	if err != nil {
		return err
	}
	return s.awaitReady(id, supervisor)
}

// awaitReady waits until a machine that is starting is ready, or until its start
// has failed.
func (s *server) awaitReady(id string, supervisor *frames.Conn) error {
	defer supervisor.Close()
	defer s.closeOnQuit(supervisor)()
	err := readStart(supervisor, func(frames.Frame) {})
	// Also after an error: if the supervisor was killed, it has released nothing.
	s.watcher.watch(id, s.quit)
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

// streamStart makes the connection of a request a stream and passes frames between
// the client and the supervisor. If the client disconnects before the machine is
// ready, the start continues and streamStart waits for its end, unless
// removeOnClose is set.
func (s *server) streamStart(w http.ResponseWriter, supervisor *frames.Conn, stream *startStream) error {
	client, err := upgrade(w)
	if err != nil {
		if stream.removeOnClose {
			return errors.Join(err, supervisor.Close())
		}
		return errors.Join(err, s.awaitReady(stream.id, supervisor))
	}
	defer client.Close()
	defer supervisor.Close()
	defer s.closeOnQuit(client, supervisor)()
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
	s.watcher.watch(stream.id, s.quit) // also after an error, as in awaitReady
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
