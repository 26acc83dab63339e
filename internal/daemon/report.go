package daemon

import (
	"net/http"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/machine"
)

// statsEvery is how often stats that are followed come.
const statsEvery = time.Second

func (s *server) logs(w http.ResponseWriter, r *http.Request) error {
	o, err := logOptions(r)
	if err != nil {
		return err
	}
	rec, err := s.find(r)
	if err != nil {
		return err
	}
	out := newLines(w)
	begun := false
	err = s.Machines.Logs(r.Context(), rec.ID, o, func(line api.LogLine) error {
		if !begun {
			out.begin()
			begun = true
		}
		if err := out.put(line); err != nil || !o.Follow {
			return err
		}
		return out.flush()
	})
	return out.finish(s, r, begun, err)
}

// finish ends an answer in lines: an error that comes after the first of them
// is the last line.
func (l *lines) finish(s *server, r *http.Request, begun bool, err error) error {
	if err != nil && begun {
		l.put(api.StreamError{Error: s.explain(r, err)}) //nolint:errcheck // it is the client who has gone
	}
	if err == nil && !begun {
		l.begin()
	}
	return err
}

func logOptions(r *http.Request) (o machine.LogOptions, err error) {
	q, err := query(r, "console", "follow", "since", "until", "tail")
	if err != nil {
		return o, err
	}
	if o.Console, err = flag(q, "console"); err != nil {
		return o, err
	}
	if o.Follow, err = flag(q, "follow"); err != nil {
		return o, err
	}
	if o.Since, err = moment(q, "since"); err != nil {
		return o, err
	}
	if o.Until, err = moment(q, "until"); err != nil {
		return o, err
	}
	o.Tail, err = number(q, "tail", -1)
	return o, err
}

func (s *server) stats(w http.ResponseWriter, r *http.Request) error {
	q, err := query(r, "follow")
	if err != nil {
		return err
	}
	follow, err := flag(q, "follow")
	if err != nil {
		return err
	}
	rec, err := s.find(r)
	if err != nil {
		return err
	}
	now, err := s.Machines.Stats(r.Context(), rec.ID)
	if err != nil {
		return err
	}
	out := newLines(w)
	out.begin()
	tick := time.NewTicker(statsEvery)
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
		now, err = s.Machines.Stats(r.Context(), rec.ID)
		if gone(err) {
			return nil
		}
		if err != nil {
			return out.finish(s, r, true, err)
		}
	}
}
