package link

import (
	"net"
	"os"
	"sync"
	"testing"
)

// A port stands for a virtio-serial port. The guest's end stays open while
// hosts connect and disconnect, and reads block while there is no host. Bytes
// in transit may be lost or kept.
type port struct {
	mu     sync.Mutex
	change sync.Cond
	host   net.Conn // nil while there is no host
	closed bool
}

func newPort() *port {
	p := &port{}
	p.change.L = &p.mu
	return p
}

// attach connects a new host in place of the previous one.
func (p *port) attach(t *testing.T) net.Conn {
	t.Helper()
	own, host := socketPair(t)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.host = own
	p.change.Broadcast()
	return host
}

func (p *port) current(gone net.Conn) (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if gone != nil && p.host == gone {
		closeQuietly(gone)
		p.host = nil
	}
	for p.host == nil && !p.closed {
		p.change.Wait()
	}
	if p.closed {
		return nil, os.ErrClosed
	}
	return p.host, nil
}

func (p *port) Read(b []byte) (int, error) {
	var gone net.Conn
	for {
		c, err := p.current(gone)
		if err != nil {
			return 0, err
		}
		if n, _ := c.Read(b); n > 0 {
			return n, nil
		}
		gone = c
	}
}

// Write continues with the next host after a host has disconnected, as the
// kernel does.
func (p *port) Write(b []byte) (int, error) {
	var gone net.Conn
	done := 0
	for done < len(b) {
		c, err := p.current(gone)
		if err != nil {
			return done, err
		}
		n, err := c.Write(b[done:])
		done += n
		if err != nil {
			gone = c
		}
	}
	return done, nil
}

func (p *port) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.host != nil {
		closeQuietly(p.host)
	}
	p.change.Broadcast()
	return nil
}
