package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/machine/record"
)

// start boots a machine. Without a stream it answers when the machine is ready. On a
// stream it sends the events of the start, and then attaches the client if the
// request asks for it.
func (h *handlers) start(w http.ResponseWriter, r *http.Request) error {
	var req api.StartRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	upgraded := wantsStream(r)
	if (req.Attach || req.Console) && !upgraded {
		return errNeedsStream()
	}
	l, err := h.convert.launch(req)
	if err != nil {
		return err
	}
	rec, err := h.find(r)
	if err != nil {
		return err
	}
	unlock, err := h.starter.lockForStart(r.Context(), rec)
	if err != nil {
		return err
	}
	defer unlock()
	supervisor, err := h.machines.Start(r.Context(), rec.ID, l)
	if errors.Is(err, record.ErrRunning) {
		unlock()
		return h.startRunning(w, r, rec, &req)
	}
	if err != nil {
		return err
	}
	if upgraded {
		return h.starter.stream(w, supervisor, &startStream{id: rec.ID, unlock: unlock})
	}
	if err := h.starter.awaitReady(rec.ID, supervisor); err != nil {
		return err
	}
	if rec, err = h.machines.Find(rec.ID); err != nil {
		return err
	}
	return answer(w, h.convert.machine(rec))
}

// lockForStart takes the lock of a machine. If another request starts the
// machine, it waits for the end of the boot, which may take longer than a request
// waits for a lock.
func (s *starter) lockForStart(ctx context.Context, rec *record.Record) (unlock func(), err error) {
	const tries = 5
	for range tries {
		unlock, err = s.locks.lock(ctx, lockRequest{rec.ID, rec.Config.Name, "start", 0})
		if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != api.CodeBusy {
			break
		}
	}
	return unlock, err
}

// startRunning answers a request to start a machine that runs already. As with
// docker it succeeds, and attaches the client if the request asks for it.
func (h *handlers) startRunning(w http.ResponseWriter, r *http.Request, rec *record.Record, req *api.StartRequest) error {
	rec, err := h.machines.Find(rec.ID)
	switch {
	case err != nil:
		return err
	case !isRunning(rec): // another process holds it
		return fmt.Errorf("machine %s: %w", rec.Config.Name, record.ErrRunning)
	case req.Kernel != "" || req.Accel != "":
		return &api.Error{Code: api.CodeRunning, Message: fmt.Sprintf(
			"machine %s: machine is running: stop it to start it with another kernel or accelerator", rec.Config.Name)}
	case !wantsStream(r):
		return answer(w, h.convert.machine(rec))
	case req.Attach:
		supervisor, err := h.machines.Attach(r.Context(), rec.ID, api.AttachRequest{Stdin: rec.Config.Stdin})
		if err != nil {
			return err
		}
		return h.join(w, supervisor)
	}
	client, err := upgrade(w)
	if err != nil {
		return err
	}
	defer client.Close()
	return client.SendJSON(frames.Event, api.Event{Ready: true})
}

// run makes a machine and boots it. If the start fails, or if the client disconnects
// before the machine is ready, the supervisor removes the machine.
func (h *handlers) run(w http.ResponseWriter, r *http.Request) error {
	var req api.RunRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if !wantsStream(r) {
		return errNeedsStream()
	}
	l, err := h.convert.launch(req.Start)
	if err != nil {
		return err
	}
	o, err := h.convert.createOptions(req.Create)
	if err != nil {
		return err
	}
	rec, warnings, supervisor, err := h.machines.Run(r.Context(), o, l)
	if err != nil {
		return err
	}
	unlock, err := h.locks.lock(r.Context(), lockRequest{rec.ID, rec.Config.Name, "run", 0})
	if err != nil {
		return errors.Join(err, supervisor.Close())
	}
	defer unlock()
	machine := h.convert.machine(rec)
	events := []api.Event{{Machine: &machine}}
	for _, text := range warnings {
		events = append(events, api.Event{Notice: text})
	}
	return h.starter.stream(w, supervisor, &startStream{id: rec.ID, unlock: unlock, events: events, removeOnClose: true})
}

func (h *handlers) restart(w http.ResponseWriter, r *http.Request) error {
	grace, err := decodeGrace(w, r)
	if err != nil {
		return err
	}
	l, err := h.convert.launch(api.StartRequest{})
	if err != nil {
		return err
	}
	return h.change(w, r, "restart", grace, func(ctx context.Context, rec *record.Record) error {
		if err := h.machines.Stop(ctx, rec.ID, grace); err != nil {
			return err
		}
		return h.starter.boot(ctx, rec.ID, l)
	})
}
