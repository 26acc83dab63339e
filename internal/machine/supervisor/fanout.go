package supervisor

import (
	"net"
	"sync"
	"time"

	"github.com/banger-vm/banger/internal/base/frames"
)

// A subscriber is a connection that receives a part of a machine's output.
type subscriber struct {
	conn    *frames.Conn
	raw     net.Conn // under conn
	output  bool     // receives the main command's outputs
	console bool     // receives the console
	events  bool     // receives the events of the start
}

// A fanOut copies a machine's output to all subscribers. It waits for each of
// them, as a pipe does: a subscriber that does not read blocks the command
// until the machine ends.
type fanOut struct {
	mu      sync.Mutex
	members map[*subscriber]bool
	limited bool // writes have a time limit
}

func newFanOut() *fanOut { return &fanOut{members: map[*subscriber]bool{}} }

func (f *fanOut) join(s *subscriber) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.members[s] = true
	if f.limited {
		limitWrites(s.raw)
	}
}

func (f *fanOut) leave(s *subscriber) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.members, s)
}

// matching returns the subscribers for which match returns true.
func (f *fanOut) matching(match func(*subscriber) bool) (out []*subscriber) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.members {
		if match(s) {
			out = append(out, s)
		}
	}
	return out
}

// limitWaits gives subscribers that do not read a few seconds more.
func (f *fanOut) limitWaits() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.limited = true
	for s := range f.members {
		limitWrites(s.raw)
	}
}

func limitWrites(conn net.Conn) {
	const grace = 5 * time.Second
	conn.SetWriteDeadline(time.Now().Add(grace))
}

// A fanOutWriter writes frames of one kind to the subscribers that match.
type fanOutWriter struct {
	fanOut *fanOut
	kind   frames.Kind
	match  func(*subscriber) bool
}

// Write never fails. It drops a subscriber that cannot be written to.
func (w fanOutWriter) Write(p []byte) (int, error) {
	for _, s := range w.fanOut.matching(w.match) {
		if _, err := s.conn.Writer(w.kind).Write(p); err != nil {
			w.fanOut.drop(s)
		}
	}
	return len(p), nil
}

func (f *fanOut) writer(kind frames.Kind, match func(*subscriber) bool) fanOutWriter {
	return fanOutWriter{f, kind, match}
}

// output returns a writer to the subscribers of the main command's outputs.
func (f *fanOut) output(kind frames.Kind) fanOutWriter {
	return f.writer(kind, func(s *subscriber) bool { return s.output })
}

// dismiss closes the connections of the subscribers that match.
func (f *fanOut) dismiss(match func(*subscriber) bool) {
	for _, s := range f.matching(match) {
		f.drop(s)
	}
}

func (f *fanOut) drop(s *subscriber) {
	f.leave(s)
	s.conn.Close()
}

// send sends a JSON frame to the subscribers that match.
func (f *fanOut) send(kind frames.Kind, v any, match func(*subscriber) bool) {
	for _, s := range f.matching(match) {
		if err := s.conn.SendJSON(kind, v); err != nil {
			f.drop(s)
		}
	}
}
