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

// A qmp is the client's end of a connection in QMP, QEMU's control protocol. A
// message is one JSON value per line; see QEMU's docs/interop/qmp-spec.
type qmp struct {
	conn    net.Conn
	greeted chan struct{} // closed when QEMU has sent its greeting
	changed chan struct{} // buffer of one; has an element if the guest's processors may have stopped or resumed
	closed  chan struct{} // closed when reading has ended and err is set

	mu      sync.Mutex // guards the fields below and writes to conn
	err     error
	lastID  uint64
	pending map[uint64]chan message
	reason  string // reason of the last SHUTDOWN event
}

// A message is a message from QEMU, of any type.
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

// maxMessage is the size limit of a message in bytes. The replies to the
// commands of this package have less than 1 KiB.
const maxMessage = 64 << 10

var errClosed = errors.New("control connection closed")

// newQMP returns a client that owns conn. Its goroutine closes q.closed and
// ends when the connection ends.
func newQMP(conn net.Conn) *qmp {
	q := &qmp{
		conn: conn, greeted: make(chan struct{}), closed: make(chan struct{}), changed: make(chan struct{}, 1),
		pending: make(map[uint64]chan message),
	}
	go q.read()
	return q
}

func (q *qmp) read() {
	err := q.readAll(bufio.NewReaderSize(q.conn, maxMessage))
	q.mu.Lock()
	q.err = err
	q.mu.Unlock()
	q.conn.Close()
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
			q.handleEvent(m)
		default:
			q.deliver(m)
		}
	}
}

// readMessage reads one message from r, whose buffer limits its size.
func readMessage(r *bufio.Reader) (message, error) {
	var m message
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return m, fmt.Errorf("control message of more than %d bytes", r.Size())
	}
	if err != nil {
		return m, errClosed // EOF or a reset, depending on unread data
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return message{}, fmt.Errorf("control message: %w", err)
	}
	return m, nil
}

// handleEvent reads the events that do not follow from the owner's commands.
func (q *qmp) handleEvent(m message) {
	switch m.Event {
	case "STOP", "RESUME":
		select {
		case q.changed <- struct{}{}:
		default: // the reader of the channel has yet to see an earlier event
		}
	case "SHUTDOWN":
		q.setReason(m)
	}
}

func (q *qmp) setReason(m message) {
	var data struct {
		Reason string `json:"reason"`
	}
	if json.Unmarshal(m.Data, &data) == nil {
		q.mu.Lock()
		q.reason = data.Reason
		q.mu.Unlock()
	}
}

// deliver passes a reply to the call that waits for it. It drops a reply if the
// call has ended.
func (q *qmp) deliver(m message) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if c, ok := q.pending[m.ID]; ok {
		delete(q.pending, m.ID)
		c <- m
	}
}

// commandTimeout limits a command if the caller's context does not. QEMU
// answers the commands in milliseconds unless its main loop hangs.
const commandTimeout = 10 * time.Second

// execute runs a command without arguments and decodes the reply into result,
// unless that is nil.
func (q *qmp) execute(ctx context.Context, command string, result any) error {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
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
		select { // the reply may have arrived before the connection ended
		case m := <-reply:
			return m.result()
		default:
			return nil, q.err
		}
	case <-ctx.Done():
		q.mu.Lock()
		delete(q.pending, id)
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
	q.lastID++
	request, err := json.Marshal(struct {
		Execute string `json:"execute"`
		ID      uint64 `json:"id"`
	}{command, q.lastID})
	if err != nil {
		return 0, err
	}
	// If QEMU does not read, a write blocks only after about 100 KiB of
	// commands. The deadline ends even that.
	if err := q.conn.SetWriteDeadline(time.Now().Add(commandTimeout)); err != nil {
		return 0, errClosed
	}
	q.pending[q.lastID] = reply
	if _, err := q.conn.Write(append(request, '\n')); err != nil {
		delete(q.pending, q.lastID)
		return 0, errClosed
	}
	return q.lastID, nil
}

func (q *qmp) shutdownReason() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.reason
}
