package link

import (
	"io"
	"sync"
)

// maxQueued is how many encoded bytes wait for the writer before a sender
// has to wait too.
const maxQueued = 256 << 10

// A wire sends frames over a byte stream. A goroutine of its own writes, so
// that frames that come while a write lasts go out together with the next:
// each write to a virtio port is one exit to the host.
type wire struct {
	rw   io.ReadWriteCloser
	done chan struct{} // closed when the writer has returned

	mu     sync.Mutex
	work   sync.Cond // the queue has something, or closing is set
	room   sync.Cond // the queue has room, or err is set
	queue  []byte
	raw    []byte // appendFrame's
	err    error
	closes bool // the writer is to return when the queue is empty
}

func newWire(rw io.ReadWriteCloser) *wire {
	w := &wire{rw: rw, done: make(chan struct{})}
	w.work.L, w.room.L = &w.mu, &w.mu
	go w.write()
	return w
}

func (w *wire) write() {
	defer close(w.done)
	var spare []byte
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		for len(w.queue) == 0 && !w.closes && w.err == nil {
			w.work.Wait()
		}
		if w.err != nil || len(w.queue) == 0 {
			w.fail(io.ErrClosedPipe)
			return
		}
		out := w.queue
		w.queue = spare[:0]
		w.room.Broadcast()
		w.mu.Unlock()
		_, err := w.rw.Write(out)
		w.mu.Lock()
		spare = out
		if err != nil {
			w.fail(err)
		}
	}
}

// fail is called with the lock held. The first error stays.
func (w *wire) fail(err error) {
	if w.err == nil {
		w.err = err
	}
	w.work.Broadcast()
	w.room.Broadcast()
}

// control queues a frame that may not wait. A zero before it ends whatever
// the other side has of a frame that was cut off.
func (w *wire) control(k kind, session id) {
	f := frame{kind: k, id: session}
	if k == hello || k == welcome {
		f.payload = []byte(greeting)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil || w.closes {
		return
	}
	w.queue = appendFrame(append(w.queue, 0), f, &w.raw)
	w.work.Signal()
}

// send queues data of a session and waits for room as long as alive is true.
// Whoever makes it false calls wake.
func (w *wire) send(session id, p []byte, alive func() bool) (int, error) {
	sent := 0
	w.mu.Lock()
	defer w.mu.Unlock()
	for sent < len(p) {
		for len(w.queue) >= maxQueued && w.err == nil && !w.closes && alive() {
			w.room.Wait()
		}
		if w.err != nil {
			return sent, w.err
		}
		if w.closes || !alive() {
			return sent, io.ErrClosedPipe
		}
		part := p[sent:min(len(p), sent+maxPayload)]
		w.queue = appendFrame(w.queue, frame{data, session, part}, &w.raw)
		w.work.Signal()
		sent += len(part)
	}
	return sent, nil
}

// wake lets senders look at their alive again.
func (w *wire) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.room.Broadcast()
}

// drop forgets what waits to be written.
func (w *wire) drop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue = w.queue[:0]
	w.room.Broadcast()
}

// finish lets the writer write what is queued and return.
func (w *wire) finish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closes = true
	w.work.Broadcast()
	w.room.Broadcast()
}
