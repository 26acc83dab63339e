package daemon

import (
	"context"
	"net/http"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/machine/record"
)

func (h *handlers) stop(w http.ResponseWriter, r *http.Request) error {
	grace, err := decodeGrace(w, r)
	if err != nil {
		return err
	}
	return h.change(w, r, "stop", grace, func(ctx context.Context, rec *record.Record) error {
		return h.machines.Stop(ctx, rec.ID, grace)
	})
}

// decodeGrace reads the body of a request that stops a machine. It returns how long
// the main command may take to end.
func decodeGrace(w http.ResponseWriter, r *http.Request) (time.Duration, error) {
	var req api.StopRequest
	if err := decode(w, r, &req); err != nil {
		return 0, err
	}
	return stopGrace(req)
}

// kill does not take the machine's lock: a user cuts a long stop short with it.
func (h *handlers) kill(w http.ResponseWriter, r *http.Request) error {
	var req api.KillRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	rec, err := h.find(r)
	if err != nil {
		return err
	}
	if err := h.machines.Kill(r.Context(), rec.ID, req.Signal); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *handlers) wait(w http.ResponseWriter, r *http.Request) error {
	if err := decode(w, r, &struct{}{}); err != nil {
		return err
	}
	rec, err := h.find(r)
	if err != nil {
		return err
	}
	exit, err := h.machines.Wait(r.Context(), rec.ID)
	if err != nil {
		return err
	}
	return answer(w, exit)
}
