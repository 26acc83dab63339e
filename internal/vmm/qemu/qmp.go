package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// QMP is QEMU's control protocol: one JSON value per line, see QEMU's
// docs/interop/qmp-spec. A qmp is the client's end of one connection.
type qmp struct {
	conn    net.Conn
	greeted chan struct{} // closed when QEMU has shown that it speaks QMP
	closed  chan struct{} // closed when reading has ended, err is set

	mu      sync.Mutex // guards what follows, and writing to conn
	err     error
	last    uint64
	waiting map[uint64]chan message
	reason  string // of the last SHUTDOWN event
}

// A message is any of those that QEMU sends.
type message struct {
	Greeting json.RawMessage `json:"QMP"`
	ID       uint64          `json:"id"`
	Return   json.RawMessage `json:"return"`
	Error    *QMPError       `json:"error"`
	Event    string          `json:"event"`
	Data     json.RawMessage `json:"data"`
}

// A QMPError is QEMU's refusal of a command.
type QMPError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *QMPError) Error() string { return e.Desc }

// maxMessage bounds a message: those of the commands used here have less than
// 1 KiB.
const maxMessage = 64 << 10

var errClosed = errors.New("control connection closed")

// newQMP takes conn over. Its goroutine ends, and closes q.closed, when the
// connection does.
func newQMP(conn net.Conn) *qmp {
	q := &qmp{
		conn: conn, greeted: make(chan struct{}), closed: make(chan struct{}),
		waiting: make(map[uint64]chan message),
	}
	go q.read()
	return q
}

func (q *qmp) read() {
	err := q.readAll(bufio.NewReaderSize(q.conn, maxMessage))
	q.mu.Lock()
	q.err = err
	q.mu.Unlock()
	hangUp(q.conn)
	close(q.closed)
}

func (q *qmp) readAll(r *bufio.Reader) error {
	greeted := false
	for {
		m, err := readMessage(r)
		if err != nil {
			return err
		}
		switch {
		case !greeted:
			if m.Greeting == nil {
				return errors.New("control connection without a greeting")
			}
			greeted = true
			close(q.greeted)
		case m.Event != "":
			q.note(m)
		default:
			q.answer(m)
		}
	}
}

// readMessage reads one message from r, whose buffer bounds its size.
func readMessage(r *bufio.Reader) (message, error) {
	var m message
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return m, fmt.Errorf("control message of more than %d bytes", r.Size())
	}
	if err != nil {
		return m, errClosed // how it ended, by EOF or by a reset, is up to what was unread
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return message{}, fmt.Errorf("control message: %w", err)
	}
	return m, nil
}

func (q *qmp) note(m message) {
	if m.Event != "SHUTDOWN" {
		return // the others say what the owner did itself
	}
	var data struct {
		Reason string `json:"reason"`
	}
	if json.Unmarshal(m.Data, &data) == nil {
		q.mu.Lock()
		q.reason = data.Reason
		q.mu.Unlock()
	}
}

// answer hands m to whoever waits for it. One that nobody waits for any more
// is dropped.
func (q *qmp) answer(m message) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if c, ok := q.waiting[m.ID]; ok {
		delete(q.waiting, m.ID)
		c <- m
	}
}

// commandLimit bounds a command that the caller does not bound: QEMU answers
// these in milliseconds unless its main loop is stuck.
const commandLimit = 10 * time.Second

// execute runs a command without arguments and puts its answer into result
// unless that is nil.
func (q *qmp) execute(ctx context.Context, command string, result any) error {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	reply, err := q.exchange(ctx, command)
	if err != nil {
		return fmt.Errorf("control command %s: %w", command, err)
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(reply, result); err != nil {
		return fmt.Errorf("answer to control command %s: %w", command, err)
	}
	return nil
}

func (q *qmp) exchange(ctx context.Context, command string) (json.RawMessage, error) {
	reply := make(chan message, 1)
	id, err := q.send(command, reply)
	if err != nil {
		return nil, err
	}
	select {
	case m := <-reply:
		return m.result()
	case <-q.closed:
		select { // the answer may have come before the end
		case m := <-reply:
			return m.result()
		default:
			return nil, q.err
		}
	case <-ctx.Done():
		q.mu.Lock()
		delete(q.waiting, id)
		q.mu.Unlock()
		return nil, ctx.Err()
	}
}

func (m *message) result() (json.RawMessage, error) {
	if m.Error != nil {
		return nil, m.Error
	}
	return m.Return, nil
}

func (q *qmp) send(command string, reply chan message) (uint64, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return 0, q.err
	}
	q.last++
	request, err := json.Marshal(struct {
		Execute string `json:"execute"`
		ID      uint64 `json:"id"`
	}{command, q.last})
	if err != nil {
		return 0, err
	}
	// A QEMU that does not read would block only after some 100 KiB of
	// commands; even that ends.
	if err := q.conn.SetWriteDeadline(time.Now().Add(commandLimit)); err != nil {
		return 0, errClosed
	}
	q.waiting[q.last] = reply
	if _, err := q.conn.Write(append(request, '\n')); err != nil {
		delete(q.waiting, q.last)
		return 0, errClosed
	}
	return q.last, nil
}

func (q *qmp) shutdownReason() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.reason
}
