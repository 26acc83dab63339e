package daemon

import (
	"encoding/json"
	"net/http"

	"github.com/banger-vm/banger/api"
)

// handlers has the handlers of the routes.
type handlers struct {
	machines machines
	convert  *converter
	locks    *machineLocks
	starter  *starter
	quit     *quitSignal
}

// A route is a kind of request that the daemon answers.
type route struct {
	pattern string // of http.ServeMux
	handle  func(http.ResponseWriter, *http.Request) error
	// early means that the daemon answers before it has reconciled the machines,
	// and clients of any version of the protocol. By an early request a client
	// finds out which daemon it is connected to, or ends a daemon of another
	// version.
	early bool
}

// routes returns all routes.
func (h *handlers) routes() []route {
	return []route{
		{"GET /v1/version", h.version, true},
		{"GET /v1/openapi.json", h.openAPI, true},
		{"POST /v1/shutdown", h.shutdown, true},
		{"GET /v1/machines", h.list, false},
		{"POST /v1/machines", h.create, false},
		{"GET /v1/machines/{ref}", h.inspect, false},
		{"DELETE /v1/machines/{ref}", h.remove, false},
		{"POST /v1/machines/{ref}/start", h.start, false},
		{"POST /v1/machines/{ref}/stop", h.stop, false},
		{"POST /v1/machines/{ref}/kill", h.kill, false},
		{"POST /v1/machines/{ref}/restart", h.restart, false},
		{"POST /v1/machines/{ref}/rename", h.rename, false},
		{"POST /v1/machines/{ref}/wait", h.wait, false},
		{"GET /v1/machines/{ref}/stats", h.stats, false},
		{"GET /v1/machines/{ref}/logs", h.logs, false},
		{"POST /v1/machines/{ref}/exec", h.exec, false},
		{"POST /v1/machines/{ref}/attach", h.attach, false},
		{"POST /v1/machines/{ref}/archive", h.archive, false},
		{"POST /v1/machines/{ref}/agent", h.agent, false},
		{"POST /v1/run", h.run, false},
		{"POST /v1/prune", h.prune, false},
	}
}

func (h *handlers) version(w http.ResponseWriter, _ *http.Request) error {
	records, _, err := h.machines.Machines()
	if err != nil {
		return err
	}
	return answer(w, h.convert.info(records))
}

func (h *handlers) openAPI(w http.ResponseWriter, _ *http.Request) error {
	return answer(w, json.RawMessage(api.OpenAPI()))
}

func (h *handlers) shutdown(w http.ResponseWriter, r *http.Request) error {
	if err := decode(w, r, &struct{}{}); err != nil {
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	h.quit.request()
	return nil
}
