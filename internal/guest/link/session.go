package link

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
)

// Limits of a session.
const (
	// streamWindow is how many bytes of one stream may be on their way or
	// unread; it is also what a stream may cost in memory.
	streamWindow = 512 << 10
	// backlog is how many streams may wait for Accept.
	backlog = 64
	// maxUnread is how many bytes may wait for the multiplexer.
	maxUnread = 256 << 10
	// forever: a machine may be paused for as long as one likes, and a
	// session outlives that.
	forever = 100 * 365 * 24 * time.Hour
)

// A Session carries streams between host and guest. The host opens them: a
// session of which the guest opens one ends.
type Session struct {
	mux *yamux.Session
}

func newSession(c *channel, host bool) (*Session, error) {
	config := yamux.DefaultConfig()
	config.AcceptBacklog = backlog
	config.EnableKeepAlive = false
	config.ConnectionWriteTimeout = forever
	config.StreamOpenTimeout = 0
	config.MaxStreamWindowSize = streamWindow
	config.LogOutput = io.Discard // what it logs ends a session, and is the session's error
	start := yamux.Server
	if host {
		start = yamux.Client
		c.guard.noStreams = true
	}
	mux, err := start(c, config)
	if err != nil {
		return nil, fmt.Errorf("start session: %w", err)
	}
	return &Session{mux}, nil
}

// Open opens a stream of the host's. It does not wait for the guest's Accept.
func (s *Session) Open(ctx context.Context) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("open stream: %w", err)
	}
	type result struct {
		stream *yamux.Stream
		err    error
	}
	opened := make(chan result, 1)
	// It waits while the other side has a full backlog, and ends with the session.
	go func() {
		stream, err := s.mux.OpenStream()
		opened <- result{stream, err}
	}()
	select {
	case r := <-opened:
		if r.err != nil {
			return nil, fmt.Errorf("open stream: %w", r.err)
		}
		return r.stream, nil
	case <-ctx.Done():
		go func() {
			if r := <-opened; r.err == nil {
				r.stream.Close() //nolint:errcheck // nobody has written to it
			}
		}()
		return nil, fmt.Errorf("open stream: %w", ctx.Err())
	}
}

// Accept waits for a stream of the host's, in the guest.
func (s *Session) Accept() (net.Conn, error) {
	stream, err := s.mux.AcceptStream()
	if err != nil {
		return nil, fmt.Errorf("accept stream: %w", err)
	}
	return stream, nil
}

// Done is closed when the session has ended.
func (s *Session) Done() <-chan struct{} { return s.mux.CloseChan() }

// Close ends the session and its streams.
func (s *Session) Close() error { return s.mux.Close() }

// A channel is the data of one session among the frames of a wire, as the
// multiplexer reads and writes it.
type channel struct {
	wire   *wire
	id     id
	onDone func()

	guard guard // of what Read returns

	mu     sync.Mutex
	change sync.Cond
	unread []byte
	ended  bool
}

func newChannel(w *wire, session id, onDone func()) *channel {
	c := &channel{wire: w, id: session, onDone: onDone}
	c.change.L = &c.mu
	return c
}

// deliver hands over what came; it waits while too much is unread. A session
// that has ended takes and forgets everything.
func (c *channel) deliver(p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.unread) > maxUnread && !c.ended {
		c.change.Wait()
	}
	if c.ended {
		return
	}
	c.unread = append(c.unread, p...)
	c.change.Broadcast()
}

func (c *channel) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.unread) == 0 && !c.ended {
		c.change.Wait()
	}
	if c.ended {
		return 0, io.EOF
	}
	n := copy(p, c.unread)
	if c.unread = c.unread[n:]; len(c.unread) == 0 {
		c.unread = nil
	}
	c.change.Broadcast()
	if err := c.guard.check(p[:n]); err != nil {
		c.ended = true
		return 0, err // with which the multiplexer closes the channel
	}
	return n, nil
}

func (c *channel) Write(p []byte) (int, error) {
	return c.wire.send(c.id, p, c.alive)
}

func (c *channel) alive() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.ended
}

// end makes the multiplexer see the end of the session.
func (c *channel) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	c.change.Broadcast()
}

// Close is called by the multiplexer, once, when the session ends for
// whatever reason.
func (c *channel) Close() error {
	c.end()
	c.wire.wake()
	c.wire.control(bye, c.id)
	if c.onDone != nil {
		c.onDone()
	}
	return nil
}
