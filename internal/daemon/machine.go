package daemon

import (
	"context"
	"errors"
	"net/http"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/machine/record"
)

func (s *server) list(w http.ResponseWriter, r *http.Request) error {
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
	records, damaged, err := s.Machines.Machines()
	if err != nil {
		return err
	}
	list := api.List{Machines: []api.Machine{}}
	for _, rec := range records {
		if (all || want.hasState() || isRunning(rec)) && want.match(rec) {
			list.Machines = append(list.Machines, s.machine(rec))
		}
	}
	for _, d := range damaged {
		list.Warnings = append(list.Warnings, d.Error())
	}
	return answer(w, list)
}

func (s *server) inspect(w http.ResponseWriter, r *http.Request) error {
	rec, err := s.find(r)
	if err != nil {
		return err
	}
	return answer(w, s.machine(rec))
}

// find returns the record of the machine that a request names.
func (s *server) find(r *http.Request) (*record.Record, error) {
	return s.Machines.Find(r.PathValue("ref"))
}

func (s *server) create(w http.ResponseWriter, r *http.Request) error {
	var req api.CreateRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	o, err := s.createOptions(req)
	if err != nil {
		return err
	}
	rec, warnings, err := s.Machines.Create(r.Context(), o)
	if err != nil {
		return err
	}
	encode(w, http.StatusCreated, api.Created{Machine: s.machine(rec), Warnings: warnings})
	return nil
}

func (s *server) remove(w http.ResponseWriter, r *http.Request) error {
	q, err := query(r, "force")
	if err != nil {
		return err
	}
	force, err := boolParam(q, "force")
	if err != nil {
		return err
	}
	id, err := s.Machines.FindID(r.PathValue("ref"))
	if err != nil {
		return err
	}
	if force {
		if err := s.Machines.Kill(r.Context(), id, ""); err != nil && !hasEnded(err) {
			return err
		}
	}
	return s.changeLocked(w, r, lockRequest{id, r.PathValue("ref"), "rm", 0}, func(ctx context.Context) error {
		err := s.Machines.Remove(ctx, id)
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

func (s *server) rename(w http.ResponseWriter, r *http.Request) error {
	var req api.RenameRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	return s.change(w, r, "rename", 0, func(ctx context.Context, rec *record.Record) error {
		return s.Machines.Rename(ctx, rec.ID, req.Name)
	})
}

func (s *server) prune(w http.ResponseWriter, r *http.Request) error {
	var req api.PruneRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	want, err := parseFilters(req.Filters)
	if err != nil {
		return err
	}
	ids, freed, err := s.Machines.Prune(r.Context(), func(rec *record.Record) bool { return !want.match(rec) })
	if err != nil {
		return err
	}
	if ids == nil {
		ids = []string{}
	}
	return answer(w, api.Pruned{Machines: ids, Freed: freed})
}
