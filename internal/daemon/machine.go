package daemon

import (
	"context"
	"errors"
	"net/http"
	"sync"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/machine/record"
)

func (h *handlers) list(w http.ResponseWriter, r *http.Request) error {
	q, err := query(r, "all", "filter")
	if err != nil {
		return err
	}
	all, err := boolParam(q, "all")
	if err != nil {
		return err
	}
	want, err := parseFilters(q["filter"])
	if err != nil {
		return err
	}
	records, damaged, err := h.machines.Machines()
	if err != nil {
		return err
	}
	list := api.List{Machines: []api.Machine{}}
	for _, rec := range records {
		if (all || want.hasState() || isRunning(rec)) && want.match(rec) {
			list.Machines = append(list.Machines, h.convert.machine(rec))
		}
	}
	h.askPaused(r.Context(), list.Machines)
	for _, d := range damaged {
		list.Warnings = append(list.Warnings, d.Error())
	}
	return answer(w, list)
}

func (h *handlers) inspect(w http.ResponseWriter, r *http.Request) error {
	rec, err := h.find(r)
	if err != nil {
		return err
	}
	m := []api.Machine{h.convert.machine(rec)}
	h.askPaused(r.Context(), m)
	return answer(w, m[0])
}

// askPaused sets Paused of the machines that run. It asks all supervisors at once.
func (h *handlers) askPaused(ctx context.Context, list []api.Machine) {
	var asking sync.WaitGroup
	defer asking.Wait()
	for i := range list {
		if m := &list[i]; m.State == api.StateRunning {
			asking.Go(func() { m.Paused = h.machines.Paused(ctx, m.ID) })
		}
	}
}

// find returns the record of the machine that a request names.
func (h *handlers) find(r *http.Request) (*record.Record, error) {
	return h.machines.Find(r.PathValue("ref"))
}

func (h *handlers) create(w http.ResponseWriter, r *http.Request) error {
	var req api.CreateRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	o, err := h.convert.createOptions(req)
	if err != nil {
		return err
	}
	rec, warnings, err := h.machines.Create(r.Context(), o)
	if err != nil {
		return err
	}
	encode(w, http.StatusCreated, api.Created{Machine: h.convert.machine(rec), Warnings: warnings})
	return nil
}

func (h *handlers) remove(w http.ResponseWriter, r *http.Request) error {
	q, err := query(r, "force")
	if err != nil {
		return err
	}
	force, err := boolParam(q, "force")
	if err != nil {
		return err
	}
	id, err := h.machines.FindID(r.PathValue("ref"))
	if err != nil {
		return err
	}
	if force {
		if err := h.machines.Kill(r.Context(), id, ""); err != nil && !hasEnded(err) {
			return err
		}
	}
	return h.changeLocked(w, r, lockRequest{id, r.PathValue("ref"), "rm", 0}, func(ctx context.Context) error {
		err := h.machines.Remove(ctx, id)
		if force && errors.Is(err, record.ErrNotFound) {
			return nil // its supervisor has removed it: a machine with Remove
		}
		return err
	})
}

// hasEnded reports whether err means that the machine does not run any more.
func hasEnded(err error) bool {
	return errors.Is(err, record.ErrNotRunning) || errors.Is(err, record.ErrNotFound)
}

func (h *handlers) rename(w http.ResponseWriter, r *http.Request) error {
	var req api.RenameRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	return h.change(w, r, "rename", 0, func(ctx context.Context, rec *record.Record) error {
		return h.machines.Rename(ctx, rec.ID, req.Name)
	})
}

func (h *handlers) prune(w http.ResponseWriter, r *http.Request) error {
	var req api.PruneRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	want, err := parseFilters(req.Filters)
	if err != nil {
		return err
	}
	ids, freed, err := h.machines.Prune(r.Context(), func(rec *record.Record) bool { return !want.match(rec) })
	if err != nil {
		return err
	}
	if ids == nil {
		ids = []string{}
	}
	return answer(w, api.Pruned{Machines: ids, Freed: freed})
}
