package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/similar"
	"github.com/banger-vm/banger/internal/machine/control"
	"github.com/banger-vm/banger/internal/machine/record"
)

// A server is the HTTP handler of the daemon. It finds the route of a request,
// answers errors and logs requests; handlers does the work.
type server struct {
	Config
	mux        *http.ServeMux
	watcher    *watcher
	starter    *starter
	idle       *idleTimer
	reconciled chan struct{} // closed when the daemon has reconciled the machines
	quit       *quitSignal
	requests   sync.WaitGroup // in progress, with their streams
}

func newServer(c Config) *server {
	convert := &converter{Config: c, started: time.Now().UTC()}
	locks, idle, quit := newMachineLocks(lockTimeout), newIdleTimer(c.Idle), newQuitSignal()
	w := &watcher{machines: c.Machines, quit: quit, log: c.Log, started: make(chan string)}
	st := &starter{machines: c.Machines, convert: convert, locks: locks, watcher: w, idle: idle, quit: quit, log: c.Log}
	w.restart = st.restartByPolicy
	s := &server{
		Config: c, mux: http.NewServeMux(), watcher: w, starter: st, idle: idle, reconciled: make(chan struct{}), quit: quit,
	}
	h := &handlers{machines: c.Machines, convert: convert, locks: locks, starter: st, quit: quit}
	for _, r := range h.routes() {
		s.mux.HandleFunc(r.pattern, func(w http.ResponseWriter, q *http.Request) { s.serve(r, w, q) })
	}
	return s
}

// ServeHTTP implements http.Handler. It also answers the requests that have no
// route, instead of the mux, so that their errors are of type api.Error too.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	defer s.requests.Done()
	s.idle.begin()
	defer s.idle.end()
	w.Header().Set(api.HeaderAPI, strconv.Itoa(api.Version))
	w.Header().Set(api.HeaderVersion, s.Version)
	if _, pattern := s.mux.Handler(r); pattern != "" {
		s.mux.ServeHTTP(w, r)
		return
	}
	if allowed := s.allowed(r); len(allowed) > 0 {
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		encode(w, http.StatusMethodNotAllowed, invalid("%s: this route takes %s", r.Method, strings.Join(allowed, " or ")))
		return
	}
	encode(w, http.StatusNotFound, &api.Error{Code: api.CodeNotFound, Message: fmt.Sprintf("%s: no such route", r.URL.Path)})
}

// allowed returns the methods for which the path of r has a route.
func (s *server) allowed(r *http.Request) (methods []string) {
	for _, method := range []string{http.MethodDelete, http.MethodGet, http.MethodPost} {
		other := r.Clone(r.Context())
		other.Method = method
		if _, pattern := s.mux.Handler(other); pattern != "" {
			methods = append(methods, method)
		}
	}
	return methods
}

// serve answers a request of a route.
func (s *server) serve(route route, w http.ResponseWriter, r *http.Request) {
	rec := &statusRecorder{ResponseWriter: w}
	begin := time.Now()
	var err error
	defer func() {
		if fault := recover(); fault != nil {
			s.Log.Error("panic", "route", route.pattern, "fault", fmt.Sprint(fault), "stack", string(debug.Stack()))
			err = &api.Error{Code: api.CodeInternal, Message: "the daemon has a fault; its log says more"}
		}
		s.finish(route, rec, r, err, time.Since(begin))
	}()
	if err = s.await(route, r); err == nil {
		err = s.named(r, route.handle(rec, r))
	}
}

// await waits until the daemon has reconciled the machines, unless the route is
// early. It returns an error if the client speaks another version of the protocol.
func (s *server) await(route route, r *http.Request) error {
	if route.early {
		return nil
	}
	if v := r.Header.Get(api.HeaderAPI); v != "" && v != strconv.Itoa(api.Version) {
		return &api.Error{Code: api.CodeVersion, Message: fmt.Sprintf(
			"version %q of the protocol: the daemon (banger %s) speaks version %d", v, s.Version, api.Version)}
	}
	select {
	case <-s.reconciled:
		return nil
	case <-r.Context().Done():
		return r.Context().Err()
	}
}

// finish answers a request that has failed and has no answer yet, and logs the
// request.
func (s *server) finish(route route, w *statusRecorder, r *http.Request, err error, took time.Duration) {
	level := slog.LevelInfo
	if r.Method == http.MethodGet {
		level = slog.LevelDebug
	}
	attrs := []slog.Attr{slog.String("route", route.pattern), slog.Duration("took", took.Round(time.Microsecond))}
	if ref := r.PathValue("ref"); ref != "" {
		attrs = append(attrs, slog.String("machine", ref))
	}
	if by := r.UserAgent(); by != "" {
		attrs = append(attrs, slog.String("by", by))
	}
	if err != nil {
		level = slog.LevelWarn
		attrs = append(attrs, slog.String("error", err.Error()))
		if w.status == 0 {
			e := explain(r, err)
			encode(w, e.Code.Status(), e)
		}
	}
	s.Log.LogAttrs(context.WithoutCancel(r.Context()), level, "request", append(attrs, slog.Int("status", w.status))...)
}

// named returns err with the name that the request has for its machine in the place of
// the machine's ID.
func (s *server) named(r *http.Request, err error) error {
	ref := r.PathValue("ref")
	if err == nil || ref == "" {
		return err
	}
	id, findErr := s.Machines.FindID(ref)
	if errors.Is(findErr, record.ErrNotFound) && errors.Is(err, record.ErrNotFound) {
		return s.suggest(ref, err)
	}
	if findErr != nil || id == ref {
		return err
	}
	e := *explain(r, err)
	e.Message = strings.ReplaceAll(e.Message, "machine "+id, "machine "+ref)
	return &e
}

// suggest adds the name of a machine to err, which reports that ref names none, if the
// user may have meant it.
func (s *server) suggest(ref string, err error) error {
	records, _, listErr := s.Machines.Machines()
	if listErr != nil {
		return err
	}
	var names []string
	for _, rec := range records {
		names = append(names, rec.Config.Name)
	}
	if name := similar.Nearest(ref, names); name != "" {
		return fmt.Errorf("%w; did you mean %s?", err, name)
	}
	return err
}

// explain returns the error of the protocol for the error of a request.
func explain(r *http.Request, err error) *api.Error {
	if r.Context().Err() != nil && errors.Is(err, context.Canceled) {
		return &api.Error{Code: api.CodeEnding, Message: "the daemon is about to end"}
	}
	return control.WireError(err)
}

// A statusRecorder records the status of an answer.
type statusRecorder struct {
	http.ResponseWriter
	status int // 0 as long as there is no answer
}

// WriteHeader implements http.ResponseWriter.
func (r *statusRecorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (r *statusRecorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap gives http.ResponseController access to the connection.
func (r *statusRecorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
