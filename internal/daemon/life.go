package daemon

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/machine"
)

func (s *server) stop(w http.ResponseWriter, r *http.Request) error {
	grace, err := decodeGrace(w, r)
	if err != nil {
		return err
	}
	return s.change(w, r, "stop", grace, func(ctx context.Context, rec *machine.Record) error {
		return s.Machines.Stop(ctx, rec.ID, grace)
	})
}

func decodeGrace(w http.ResponseWriter, r *http.Request) (time.Duration, error) {
	var req api.StopRequest
	if err := decode(w, r, &req); err != nil {
		return 0, err
	}
	return stopGrace(req)
}

// kill waits for no other command: it is what cuts a long one short.
func (s *server) kill(w http.ResponseWriter, r *http.Request) error {
	var req api.KillRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	rec, err := s.find(r)
	if err != nil {
		return err
	}
	if err := s.Machines.Kill(r.Context(), rec.ID, req.Signal); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *server) wait(w http.ResponseWriter, r *http.Request) error {
	if err := decode(w, r, &struct{}{}); err != nil {
		return err
	}
	rec, err := s.find(r)
	if err != nil {
		return err
	}
	exit, err := s.Machines.Wait(r.Context(), rec.ID)
	if err != nil {
		return err
	}
	return answer(w, exit)
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
	return s.change(w, r, "restart", grace, func(ctx context.Context, rec *machine.Record) error {
		if err := s.Machines.Stop(ctx, rec.ID, grace); err != nil {
			return err
		}
		supervisor, err := s.Machines.Start(ctx, rec.ID, l)
		if err != nil {
			return err
		}
		return s.boot(rec.ID, supervisor)
	})
}

// start answers when the machine is ready, or has its client watch and attach.
func (s *server) start(w http.ResponseWriter, r *http.Request) error {
	var req api.StartRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	upgraded := wantsStream(r)
	if (req.Attach || req.Console) && !upgraded {
		return noStream()
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
		return s.lead(w, supervisor, &follower{id: rec.ID, unlock: unlock})
	}
	if err := s.boot(rec.ID, supervisor); err != nil {
		return err
	}
	if rec, err = s.Machines.Find(rec.ID); err != nil {
		return err
	}
	return answer(w, s.machine(rec))
}

// run makes a machine and starts it. Of one that does not come up, or whose
// client goes before it has, nothing is left.
func (s *server) run(w http.ResponseWriter, r *http.Request) error {
	var req api.RunRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if !wantsStream(r) {
		return noStream()
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
	first := []api.Event{{Machine: &machine}}
	for _, text := range warnings {
		first = append(first, api.Event{Notice: text})
	}
	return s.lead(w, supervisor, &follower{id: rec.ID, unlock: unlock, first: first, only: true})
}

// boot waits until a machine that is being started is ready.
func (s *server) boot(id string, supervisor *frames.Conn) error {
	defer supervisor.Close()
	defer s.closing(supervisor)()
	err := eachFrame(supervisor, func(frames.Frame) {})
	s.watcher.watch(id, s.ended) // also after an error: a supervisor that was killed has given nothing back
	return err
}

// frames tells what a supervisor says until the machine is ready. An Error
// frame is returned, not told.
func eachFrame(supervisor *frames.Conn, tell func(frames.Frame)) error {
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
		tell(f)
		if f.Kind == frames.Exit { // it was ready and has ended
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

// A follower is a client that watches a start.
type follower struct {
	id     string
	unlock func()      // unlocks the machine
	first  []api.Event // what it is told before all else
	only   bool        // the machine is to go with the client, until it is ready
}

// lead makes the connection of a start a stream, and carries it between the
// client and the supervisor. Where the client goes before the machine is
// ready the start goes on, watched to its end.
func (s *server) lead(w http.ResponseWriter, supervisor *frames.Conn, f *follower) error {
	client, err := upgrade(w)
	if err != nil {
		if f.only {
			return errors.Join(err, supervisor.Close())
		}
		return errors.Join(err, s.boot(f.id, supervisor))
	}
	defer client.Close()
	defer supervisor.Close()
	defer s.closing(client, supervisor)()
	for _, e := range f.first {
		_ = client.SendJSON(frames.Event, e) // if the client has closed the connection, pass returns
	}
	var watch sync.WaitGroup
	defer watch.Wait()
	defer client.Close()
	gone := make(chan struct{})
	watch.Go(func() {
		defer close(gone)
		pass(supervisor, client)
		if f.only {
			supervisor.Close()
		}
	})
	if err := eachFrame(supervisor, func(f frames.Frame) { _ = client.Send(f.Kind, f.Payload) }); err != nil {
		s.watcher.watch(f.id, s.ended) // as in boot
		_ = client.SendJSON(frames.Error, machine.WireError(err))
		return err
	}
	f.unlock()
	s.watcher.watch(f.id, s.ended)
	watch.Go(func() {
		<-gone
		supervisor.Close()
	})
	pass(client, supervisor)
	return nil
}

// pass sends the frames of one connection to another until either ends.
func pass(to, from *frames.Conn) {
	for {
		f, err := from.Next()
		if err != nil {
			return
		}
		if err := to.Send(f.Kind, f.Payload); err != nil {
			return
		}
	}
}

// closing closes connections when the daemon ends before stop is called.
func (s *server) closing(conns ...io.Closer) (stop func()) {
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-s.ended:
			for _, c := range conns {
				c.Close()
			}
		case <-done:
		}
	}()
	return func() {
		close(done)
		<-stopped
	}
}
