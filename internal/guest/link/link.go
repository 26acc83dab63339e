// Package link carries sessions of many streams over the one byte stream
// between a machine and its host, such as a virtio-serial port.
//
// The guest gets no reliable notice that one host process has gone and another
// has come. Bytes of the old process may still be in transit, and either side
// may have been cut off anywhere. So all data is in frames that carry the ID of
// their session, and a receiver finds the start of a frame from any position.
// The host starts a session by sending hello with a new ID until it gets a
// welcome. A hello ends the guest's previous session.
//
// The package has no authentication: any process with the byte stream can start
// a session. It refuses a peer of another version.
package link

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"time"
)

// The interval between the host's hellos grows from minHelloInterval to
// maxHelloInterval. A guest that boots opens its port late, and bytes that were
// sent before may or may not reach it.
const (
	minHelloInterval = 20 * time.Millisecond
	maxHelloInterval = 250 * time.Millisecond
)

// flushTimeout is how long the end of a host's session waits until the last
// frames are written.
const flushTimeout = 250 * time.Millisecond

// A VersionError reports that the guest uses another version of the protocol.
type VersionError struct{ Guest, Host int }

func (e *VersionError) Error() string {
	return fmt.Sprintf("guest speaks version %d of the link protocol, this banger version %d", e.Guest, e.Host)
}

// Connect starts a session with the guest at the other end of conn. It waits
// for the guest until ctx ends. The session owns conn; if Connect fails, it
// closes conn.
func Connect(ctx context.Context, conn io.ReadWriteCloser) (*Session, error) {
	h := &host{wire: newWire(conn), welcomed: make(chan error, 1), done: make(chan struct{})}
	rand.Read(h.id[:])
	h.channel = newChannel(h.wire, h.id, h.close)
	go h.read()
	if err := h.handshake(ctx); err != nil {
		h.close()
		return nil, fmt.Errorf("reach the guest's agent: %w", err)
	}
	return newSession(h.channel, true)
}

type host struct {
	wire     *wire
	id       id
	channel  *channel
	welcomed chan error
	done     chan struct{} // closed when the reader has returned
}

func (h *host) handshake(ctx context.Context) error {
	wait := minHelloInterval
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		h.wire.control(hello, h.id)
		select {
		case err := <-h.welcomed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			wait = min(wait*3/2, maxHelloInterval)
			timer.Reset(wait)
		}
	}
}

// read delivers frames until the byte stream ends. Garbage after the welcome ends
// the session: it may have replaced a frame, and the streams would wait for it.
func (h *host) read() {
	defer close(h.done)
	r := newReader(h.wire.rw)
	welcomed := false
	for {
		f, err := r.next()
		if err != nil {
			h.channel.fail(err)
			h.wire.wake()
			if !welcomed {
				h.welcomed <- fmt.Errorf("connection ended: %w", err)
			}
			return
		}
		switch {
		case f.id != h.id: // a frame of an earlier host's session
		case f.kind == welcome && !welcomed:
			welcomed = true
			r.strict = true // the guest has dropped what it had to send in earlier sessions
			h.welcomed <- checkVersion(f)
		case f.kind == data && welcomed:
			h.channel.deliver(f.payload)
		case f.kind == bye && welcomed:
			h.channel.end()
			h.wire.wake()
		}
	}
}

func sameVersion(f frame) bool { return string(f.payload) == greeting }

func checkVersion(f frame) error {
	if !sameVersion(f) {
		return &VersionError{int(f.payload[len(greeting)-1]), int(greeting[len(greeting)-1])}
	}
	return nil
}

// close waits at most flushTimeout for the last frames, and closes the stream,
// which ends the reader and the writer.
func (h *host) close() {
	h.wire.finish()
	timer := time.NewTimer(flushTimeout)
	defer timer.Stop()
	select {
	case <-h.wire.done:
	case <-timer.C:
	}
	h.channel.end()
	h.wire.rw.Close()
	<-h.wire.done
	<-h.done
}

// A Listener is the guest's end of the byte stream. It has at most one session
// at a time.
type Listener struct {
	wire     *wire
	sessions chan *Session
	done     chan struct{} // closed when the reader has returned
	err      error         // the reader's error; valid after done is closed

	// The fields below belong to the reader.
	channel *channel // of the current session
	session *Session // the current session
	refused id       // ID of the last session that got a bye
}

// Listen returns a Listener that owns port, the guest's end. A Read of port
// must block while the host end is closed: any error, including io.EOF, ends
// the Listener.
func Listen(port io.ReadWriteCloser) *Listener {
	l := &Listener{wire: newWire(port), sessions: make(chan *Session, 1), done: make(chan struct{})}
	go l.read()
	return l
}

// Accept waits for the next session. The previous session has ended by then.
func (l *Listener) Accept(ctx context.Context) (*Session, error) {
	select {
	case s := <-l.sessions:
		return s, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the host: %w", ctx.Err())
	case <-l.done:
		return nil, fmt.Errorf("wait for the host: %w", l.err)
	}
}

// Close ends the current session and closes the port.
func (l *Listener) Close() error {
	err := l.wire.rw.Close()
	<-l.done
	l.wire.finish()
	<-l.wire.done
	return err
}

func (l *Listener) read() {
	defer close(l.done)
	defer l.endSession()
	r := newReader(l.wire.rw)
	for {
		f, err := r.next()
		if err != nil {
			l.err = err
			return
		}
		if err := l.handle(f); err != nil {
			l.err = err
			return
		}
	}
}

func (l *Listener) handle(f frame) error {
	current := l.channel != nil && l.channel.id == f.id
	switch f.kind {
	case hello:
		if current {
			l.wire.control(welcome, f.id) // the first welcome was lost, or this hello is late
			return nil
		}
		return l.begin(f)
	case data:
		if current {
			l.channel.deliver(f.payload)
		} else if f.id != l.refused {
			l.refused = f.id
			l.wire.control(bye, f.id)
		}
	case bye:
		if current {
			l.channel.end()
			l.wire.wake()
		}
	}
	return nil
}

// begin starts the session of a hello. It ends the previous session first and
// discards its queued frames. If the host has another version, begin sends only
// a welcome, which contains the guest's version.
func (l *Listener) begin(f frame) error {
	l.endSession()
	l.wire.drop()
	l.wire.control(welcome, f.id)
	if !sameVersion(f) {
		return nil
	}
	l.channel = newChannel(l.wire, f.id, nil)
	session, err := newSession(l.channel, false)
	if err != nil {
		return err
	}
	l.session = session
	select {
	case <-l.sessions: // a session that was not accepted, and has ended
	default:
	}
	l.sessions <- session
	return nil
}

func (l *Listener) endSession() {
	if l.session == nil {
		return
	}
	l.session.Close()
	l.session, l.channel = nil, nil
}
