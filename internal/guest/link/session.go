package link

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/yamux"
)

// Limits of a session.
const (
	// streamWindow is the number of bytes of one stream that may be in transit
	// or unread. It bounds the memory of a stream.
	streamWindow = 512 << 10
	// backlog is the number of streams that may wait for Accept.
	backlog = 64
	// maxUnread is the number of bytes that may wait for the multiplexer.
	maxUnread = 256 << 10
	// noTimeout lets a session survive any pause of the machine.
	noTimeout = 100 * 365 * 24 * time.Hour
)

// A Session carries streams between host and guest. Only the host may open
// streams. If the guest opens one, the session ends.
type Session struct {
	mux *yamux.Session
}

func newSession(c *channel, host bool) (*Session, error) {
	config := yamux.DefaultConfig()
	config.AcceptBacklog = backlog
	config.EnableKeepAlive = false
	config.ConnectionWriteTimeout = noTimeout
	config.StreamOpenTimeout = 0
	config.MaxStreamWindowSize = streamWindow
	config.LogOutput = io.Discard // every condition that yamux logs also ends the session with an error
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

// Open opens a stream from the host. It does not wait for the guest's Accept.
func (s *Session) Open(ctx context.Context) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("open stream: %w", err)
	}
	type result struct {
		stream *yamux.Stream
		err    error
	}
	opened := make(chan result, 1)
	// OpenStream blocks while the guest's backlog is full. It returns at the
	// latest when the session ends.
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
				_ = r.stream.Close() // no data is lost: none was written
			}
		}()
		return nil, fmt.Errorf("open stream: %w", ctx.Err())
	}
}

// Accept waits for a stream from the host. Only the guest calls it.
func (s *Session) Accept() (net.Conn, error) {
	stream, err := s.mux.AcceptStream()
	if err != nil {
		return nil, fmt.Errorf("accept stream: %w", err)
	}
	return stream, nil
}

// Done returns a channel that is closed when the session has ended.
func (s *Session) Done() <-chan struct{} { return s.mux.CloseChan() }

// Violation waits for Done. It returns the reason if the session has ended because
// the other side has violated the protocol, and nil otherwise.
func (s *Session) Violation() error {
	<-s.Done()
	_, err := s.mux.AcceptStream() // returns the error that has ended the session
	for _, target := range []error{nil, io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, yamux.ErrSessionShutdown, net.ErrClosed, syscall.ECONNRESET} {
		if errors.Is(err, target) {
			return nil
		}
	}
	return err
}

// Close ends the session and its streams.
func (s *Session) Close() error { return s.mux.Close() }

// A channel is the data of one session, as the multiplexer reads and writes it.
type channel struct {
	wire   *wire
	id     id
	onDone func()

	guard guard // checks the bytes that Read returns

	mu     sync.Mutex
	change sync.Cond
	unread []byte
	ended  bool
	err    error // of Read after the end; nil is io.EOF
}

func newChannel(w *wire, session id, onDone func()) *channel {
	c := &channel{wire: w, id: session, onDone: onDone}
	c.change.L = &c.mu
	return c
}

// deliver appends received data. It waits while more than maxUnread bytes are
// unread. If the session has ended, deliver discards the data.
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
		return 0, cmp.Or(c.err, io.EOF)
	}
	n := copy(p, c.unread)
	if c.unread = c.unread[n:]; len(c.unread) == 0 {
		c.unread = nil
	}
	c.change.Broadcast()
	if err := c.guard.check(p[:n]); err != nil {
		c.ended = true
		return 0, err // the multiplexer closes the channel with this error
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

// end makes Read return io.EOF and Write fail.
func (c *channel) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	c.change.Broadcast()
}

// fail is end with an error for Read.
func (c *channel) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.ended, c.err = true, err
	}
	c.change.Broadcast()
}

// Close ends the session. The multiplexer calls it once.
func (c *channel) Close() error {
	c.end()
	c.wire.wake()
	c.wire.control(bye, c.id)
	if c.onDone != nil {
		c.onDone()
	}
	return nil
}
