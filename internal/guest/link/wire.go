package link

import (
	"io"
	"sync"
)

// maxQueued is the number of encoded bytes in the queue above which a sender
// waits.
const maxQueued = 256 << 10

// A wire sends frames over a byte stream. A goroutine does the writing, so that
// frames that arrive during a write go out together in the next one: each write
// to a virtio port exits to the host.
type wire struct {
	rw   io.ReadWriteCloser
	done chan struct{} // closed when the writer has returned

	mu      sync.Mutex
	work    sync.Cond // signals that the queue is not empty, closing is set or err is set
	room    sync.Cond // signals that the queue has room, closing is set, err is set or alive may have changed
	queue   []byte
	raw     []byte // scratch buffer of appendFrame
	err     error
	closing bool // the writer returns when the queue is empty
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
		for len(w.queue) == 0 && !w.closing && w.err == nil {
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

// fail records the first error. The caller holds the lock.
func (w *wire) fail(err error) {
	if w.err == nil {
		w.err = err
	}
	w.work.Broadcast()
	w.room.Broadcast()
}

// control queues a frame without waiting for room. It puts a zero before the
// frame, which ends an incomplete frame at the receiver.
func (w *wire) control(k kind, session id) {
	f := frame{kind: k, id: session}
	if k == hello || k == welcome {
		f.payload = []byte(greeting)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil || w.closing {
		return
	}
	w.queue = appendFrame(append(w.queue, 0), f, &w.raw)
	w.work.Signal()
}

// send queues data of a session and waits for room while alive returns true.
// The caller that makes alive return false must call wake.
func (w *wire) send(session id, p []byte, alive func() bool) (int, error) {
	sent := 0
	w.mu.Lock()
	defer w.mu.Unlock()
	for sent < len(p) {
		for len(w.queue) >= maxQueued && w.err == nil && !w.closing && alive() {
			w.room.Wait()
		}
		if w.err != nil {
			return sent, w.err
		}
		if w.closing || !alive() {
			return sent, io.ErrClosedPipe
		}
		part := p[sent:min(len(p), sent+maxPayload)]
		w.queue = appendFrame(w.queue, frame{data, session, part}, &w.raw)
		w.work.Signal()
		sent += len(part)
	}
	return sent, nil
}

// wake makes the waiting senders call alive again.
func (w *wire) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.room.Broadcast()
}

// drop discards the queue.
func (w *wire) drop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue = w.queue[:0]
	w.room.Broadcast()
}

// finish makes the writer return after it has written the queue.
func (w *wire) finish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closing = true
	w.work.Broadcast()
	w.room.Broadcast()
}
