// Package link makes sessions of many streams out of the one byte stream
// between a machine and its host, such as a virtio-serial port. The guest
// never learns reliably that the host's process has gone and another has
// come, bytes of the old one may be on their way still, and either side may
// have been cut off in the middle of anything. So everything is in frames
// that carry their session's id, and whose start is found from anywhere; the
// host begins a session by saying hello with a new id until it is welcomed,
// and a hello ends the guest's session before it. The package knows no keys:
// whoever has the byte stream may speak. It refuses another version's peer.
package link

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"time"
)

// The host says hello after these times, the later one at the end: a guest
// that boots has its port late, and takes what was sent before it or not.
const (
	firstHello = 20 * time.Millisecond
	lastHello  = 250 * time.Millisecond
)

// byeWait bounds how long the end of a host's session waits for the last
// frames to be taken.
const byeWait = 250 * time.Millisecond

// A VersionError says that the guest speaks another version of the protocol.
type VersionError struct{ Guest, Host int }

func (e *VersionError) Error() string {
	return fmt.Sprintf("guest speaks version %d of the link protocol, this banger version %d", e.Guest, e.Host)
}

// Host begins a session with the guest at the other end of conn, waiting for
// it as long as ctx lasts. The session owns conn from here on, also when
// there is an error.
func Host(ctx context.Context, conn io.ReadWriteCloser) (*Session, error) {
	h := &host{wire: newWire(conn), welcomed: make(chan error, 1), done: make(chan struct{})}
	rand.Read(h.id[:])
	h.channel = newChannel(h.wire, h.id, func() { h.close() }) //nolint:errcheck // nothing is left to be lost
	go h.read()
	if err := h.greet(ctx); err != nil {
		h.close() //nolint:errcheck // the handshake's error says more
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

func (h *host) greet(ctx context.Context) error {
	wait := firstHello
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
			wait = min(wait*3/2, lastHello)
			timer.Reset(wait)
		}
	}
}

// read ends with the byte stream.
func (h *host) read() {
	defer close(h.done)
	r := newReader(h.wire.rw)
	met := false
	for {
		f, err := r.next()
		if err != nil {
			h.channel.end()
			h.wire.wake()
			if !met {
				h.welcomed <- fmt.Errorf("connection ended: %w", err)
			}
			return
		}
		switch {
		case f.id != h.id: // of another host's session, before this one
		case f.kind == welcome && !met:
			met = true
			h.welcomed <- checkVersion(f)
		case f.kind == data && met:
			h.channel.deliver(f.payload)
		case f.kind == bye && met:
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

// close lets the last frames out, if they are taken, and closes the stream,
// which ends the reader and the writer.
func (h *host) close() error {
	h.wire.finish()
	timer := time.NewTimer(byeWait)
	defer timer.Stop()
	select {
	case <-h.wire.done:
	case <-timer.C:
	}
	h.channel.end()
	err := h.wire.rw.Close()
	<-h.wire.done
	<-h.done
	return err
}

// A Listener is the guest's end of the byte stream. It has at most one
// session at a time.
type Listener struct {
	wire     *wire
	sessions chan *Session
	done     chan struct{} // closed when the reader has returned
	err      error         // why it has

	// The reader's own.
	channel *channel // of the newest session
	session *Session // likewise
	refused id       // of the last session that a bye was sent to
}

// Listen makes port the guest's end; the Listener owns it. A Read of port has
// to wait while the host is away: any error, also io.EOF, is the link's end.
func Listen(port io.ReadWriteCloser) *Listener {
	l := &Listener{wire: newWire(port), sessions: make(chan *Session, 1), done: make(chan struct{})}
	go l.read()
	return l
}

// Accept waits for the next session. The one before it has ended then.
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

// Close ends the session that there is and closes the port.
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
			l.wire.control(welcome, f.id) // the first one was lost, or this hello is late
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

// begin ends the session before, whose frames nobody awaits any more, and
// makes the one that a hello asks for. A host of another version is told
// ours.
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
	case <-l.sessions: // nobody took it, and it has ended
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
