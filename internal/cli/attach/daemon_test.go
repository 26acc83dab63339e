package attach

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/frames"
)

// A fakeDaemon has one machine. A function of the test serves each connection to
// the machine's command.
type fakeDaemon struct {
	t        *testing.T
	requests chan string // the other requests for the machine: stop, kill and remove, with its ID

	mu          sync.Mutex // held while a connection is served
	conn        *frames.Conn
	machine     api.Machine // the answer to inspect
	connections int         // so far
}

// newDaemon returns a fakeDaemon that serves connections by serve, and a client of it.
func newDaemon(t *testing.T, serve func(*fakeDaemon)) (*fakeDaemon, *api.Client) {
	t.Helper()
	s := &fakeDaemon{t: t, requests: make(chan string, 8), machine: api.Machine{ID: "0123456789ab", State: api.StateRunning}}
	mux := http.NewServeMux()
	upgrade := func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		// The connection carries frames after the body of the request.
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Error(err)
		}
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		head := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + api.Protocol + "\r\n" +
			api.HeaderAPI + ": " + strconv.Itoa(api.Version) + "\r\n\r\n"
		if _, err := io.WriteString(conn, head); err != nil {
			t.Error(err)
		}
		s.conn = frames.NewBuffered(conn, buffered.Reader)
		defer s.conn.Close()
		s.connections++
		serve(s)
	}
	mux.HandleFunc("POST /v1/run", upgrade)
	mux.HandleFunc("POST /v1/machines/{id}/attach", upgrade)
	mux.HandleFunc("GET /v1/machines/{id}", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		w.Header().Set(api.HeaderAPI, strconv.Itoa(api.Version))
		if err := json.NewEncoder(w).Encode(s.machine); err != nil {
			t.Error(err)
		}
	})
	mux.HandleFunc("POST /v1/machines/{id}/{verb}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(api.HeaderAPI, strconv.Itoa(api.Version))
		s.requests <- r.PathValue("verb") + " " + r.PathValue("id")
	})
	mux.HandleFunc("DELETE /v1/machines/{id}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(api.HeaderAPI, strconv.Itoa(api.Version))
		s.requests <- "remove " + r.PathValue("id")
	})
	socket := filepath.Join(t.TempDir(), "daemon.sock")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	go func() {
		server.Serve(l)
		close(served)
	}()
	t.Cleanup(func() {
		server.Close()
		<-served
	})
	return s, &api.Client{Socket: socket}
}

func (s *fakeDaemon) send(kind frames.Kind, v any) {
	if err := s.conn.SendJSON(kind, v); err != nil {
		s.t.Error(err)
	}
}

// ready sends the events of a boot.
func (s *fakeDaemon) ready() {
	s.send(frames.Event, api.Event{Machine: &api.Machine{ID: "0123456789ab", Name: "box"}})
	s.send(frames.Event, api.Event{Ready: true})
}

// next returns the text of the next frame, which must be of the kind.
func (s *fakeDaemon) next(kind frames.Kind) string {
	f, err := s.conn.Next()
	if err != nil || f.Kind != kind {
		s.t.Errorf("frame %d %q, %v, want one of kind %d", f.Kind, f.Payload, err, kind)
	}
	return string(f.Payload)
}

// wantRequest waits for the next request for the machine.
func (s *fakeDaemon) wantRequest(want string) {
	if got := <-s.requests; got != want {
		s.t.Errorf("request %q, want %q", got, want)
	}
}

// A screen collects output, and signals when it contains a text.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
	wait map[string]chan struct{}
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.text.Write(p)
	for want, ch := range s.wait {
		if strings.Contains(s.text.String(), want) {
			close(ch)
			delete(s.wait, want)
		}
	}
	return n, err
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// shows returns a channel that is closed when the screen contains the text.
func (s *screen) shows(want string) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch := make(chan struct{})
	if strings.Contains(s.text.String(), want) {
		close(ch)
		return ch
	}
	if s.wait == nil {
		s.wait = map[string]chan struct{}{}
	}
	s.wait[want] = ch
	return ch
}

// write sends output of the command.
func (s *fakeDaemon) write(kind frames.Kind, text string) {
	if err := s.conn.Send(kind, []byte(text)); err != nil {
		s.t.Error(err)
	}
}

// removed waits until the client has removed the machine and closed the connection.
func (s *fakeDaemon) removed() {
	s.wantRequest("remove 0123456789ab")
	if f, err := s.conn.Next(); err == nil {
		s.t.Errorf("frame %d", f.Kind)
	}
}

// signalledTwice serves a run until the second signal has stopped the machine.
func (s *fakeDaemon) signalledTwice() {
	s.ready()
	s.write(frames.Stderr, "up")
	s.next(frames.Signal)
	s.write(frames.Stderr, "one")
	s.wantRequest("stop 0123456789ab")
}
