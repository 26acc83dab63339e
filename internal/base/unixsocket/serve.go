package unixsocket

import (
	"net"
	"sync"
)

// An Acceptor is a *net.UnixListener, or a type that embeds one and accepts fewer
// connections.
type Acceptor interface {
	net.Listener
	AcceptUnix() (*net.UnixConn, error)
}

// Limit returns a listener that accepts the connections of l, at most limit of them
// open at a time. It passes each further one to refuse, which closes it without
// waiting for the peer. If refuse is nil, Accept closes it.
func Limit(l Acceptor, limit int, refuse func(*net.UnixConn)) net.Listener {
	if refuse == nil {
		refuse = func(conn *net.UnixConn) { conn.Close() }
	}
	return &limited{Acceptor: l, slots: make(chan struct{}, limit), refuse: refuse}
}

type limited struct {
	Acceptor
	slots  chan struct{} // an element for each open connection
	refuse func(*net.UnixConn)
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		select {
		case l.slots <- struct{}{}:
			return &limitedConn{UnixConn: conn, release: sync.OnceFunc(func() { <-l.slots })}, nil
		default:
			l.refuse(conn)
		}
	}
}

// A limitedConn is a connection that counts toward the limit until it is closed.
type limitedConn struct {
	*net.UnixConn
	release func()
}

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	defer c.release()
	return c.UnixConn.Close()
}

// Serve accepts connections and calls handle for each in a goroutine of its own, and
// closes the connection when handle returns. When l is closed or fails, Serve waits
// for the handlers and returns the error of Accept.
func Serve(l net.Listener, handle func(net.Conn)) error {
	var handlers sync.WaitGroup
	defer handlers.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		handlers.Go(func() {
			defer conn.Close()
			handle(conn)
		})
	}
}
