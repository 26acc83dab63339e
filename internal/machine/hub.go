package machine

import (
	"net"
	"sync"
	"time"

	"github.com/banger-vm/banger/internal/base/frames"
)

// An audience is one connection that a machine's output goes to.
type audience struct {
	conn    *frames.Conn
	raw     net.Conn // that conn is over
	output  bool     // the main command's
	console bool
	events  bool
}

// A hub passes what a machine puts out on to all that are attached. It waits
// for each of them, as a pipe does: what is attached holds the command up when
// it does not read, until the machine ends.
type hub struct {
	mu      sync.Mutex
	members map[*audience]bool
	hurry   bool // nobody is waited for any more
}

func newHub() *hub { return &hub{members: map[*audience]bool{}} }

func (h *hub) join(a *audience) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.members[a] = true
	if h.hurry {
		limitWrites(a.raw)
	}
}

func (h *hub) leave(a *audience) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.members, a)
}

// those returns the members that are wanted.
func (h *hub) those(want func(*audience) bool) (out []*audience) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for a := range h.members {
		if want(a) {
			out = append(out, a)
		}
	}
	return out
}

// hurryUp gives those who do not read a few seconds more.
func (h *hub) hurryUp() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hurry = true
	for a := range h.members {
		limitWrites(a.raw)
	}
}

func limitWrites(conn net.Conn) {
	const grace = 5 * time.Second
	conn.SetWriteDeadline(time.Now().Add(grace))
}

// A hubWriter writes to the members that want its kind of frame.
type hubWriter struct {
	hub  *hub
	kind frames.Kind
	want func(*audience) bool
}

// Write never fails: a member that cannot be written to is one no more.
func (w hubWriter) Write(p []byte) (int, error) {
	for _, a := range w.hub.those(w.want) {
		if _, err := a.conn.Writer(w.kind).Write(p); err != nil {
			w.hub.drop(a)
		}
	}
	return len(p), nil
}

// output is a writer to those who want the main command's output.
func (h *hub) output(kind frames.Kind) hubWriter {
	return hubWriter{h, kind, func(a *audience) bool { return a.output }}
}

// dismiss lets the members go that are wanted: they have been told everything.
func (h *hub) dismiss(want func(*audience) bool) {
	for _, a := range h.those(want) {
		h.drop(a)
	}
}

func (h *hub) drop(a *audience) {
	h.leave(a)
	a.conn.Close()
}

// tell sends a JSON frame to the members that are wanted.
func (h *hub) tell(kind frames.Kind, v any, want func(*audience) bool) {
	for _, a := range h.those(want) {
		if err := a.conn.SendJSON(kind, v); err != nil {
			h.drop(a)
		}
	}
}
