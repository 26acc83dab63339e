package daemon

import (
	"net/http"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/machine"
)

// statsInterval is the time between two values of stats that are followed.
const statsInterval = time.Second

func (h *handlers) logs(w http.ResponseWriter, r *http.Request) error {
	o, err := logOptions(r)
	if err != nil {
		return err
	}
	rec, err := h.find(r)
	if err != nil {
		return err
	}
	out := newJSONLines(w, r)
	return out.end(h.machines.Logs(r.Context(), rec.ID, o, func(line api.LogLine) error {
		if err := out.put(line); err != nil || !o.Follow {
			return err
		}
		return out.flush()
	}))
}

// logOptions returns the options in the query of a logs request.
func logOptions(r *http.Request) (o machine.LogOptions, err error) {
	q, err := query(r, "console", "follow", "since", "until", "tail")
	if err != nil {
		return o, err
	}
	if o.Console, err = boolParam(q, "console"); err != nil {
		return o, err
	}
	if o.Follow, err = boolParam(q, "follow"); err != nil {
		return o, err
	}
	if o.Since, err = timeParam(q, "since"); err != nil {
		return o, err
	}
	if o.Until, err = timeParam(q, "until"); err != nil {
		return o, err
	}
	o.Tail, err = intParam(q, "tail", -1)
	return o, err
}

func (h *handlers) stats(w http.ResponseWriter, r *http.Request) error {
	q, err := query(r, "follow")
	if err != nil {
		return err
	}
	follow, err := boolParam(q, "follow")
	if err != nil {
		return err
	}
	rec, err := h.find(r)
	if err != nil {
		return err
	}
	now, err := h.machines.Stats(r.Context(), rec.ID)
	if err != nil {
		return err
	}
	out := newJSONLines(w, r)
	tick := time.NewTicker(statsInterval)
	defer tick.Stop()
	for {
		if err := out.put(now); err != nil || !follow {
			return err
		}
		if err := out.flush(); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return nil
		}
		now, err = h.machines.Stats(r.Context(), rec.ID)
		if hasEnded(err) {
			return nil
		}
		if err != nil {
			return out.end(err)
		}
	}
}
