package daemon

import (
	"io"
	"sync"
)

// A quitSignal is the request that the daemon shuts down.
type quitSignal struct {
	requested chan struct{} // closed by request
	request   func()        // may be called more than once
}

func newQuitSignal() *quitSignal {
	requested := make(chan struct{})
	return &quitSignal{requested: requested, request: sync.OnceFunc(func() { close(requested) })}
}

// closeOnRequest closes connections when the daemon shuts down. The caller calls stop
// when it has done with the connections.
func (q *quitSignal) closeOnRequest(conns ...io.Closer) (stop func()) {
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-q.requested:
			for _, c := range conns {
				c.Close()
			}
		case <-done:
		}
	}()
	return func() {
		close(done)
		<-stopped
	}
}
