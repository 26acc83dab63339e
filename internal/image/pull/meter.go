package pull

import (
	"fmt"
	"time"
)

// slowError reports a server that keeps a connection, but does not send enough.
// Bytes that it sends do not excuse it: only one further attempt follows.
type slowError struct{ text string }

func (e *slowError) Error() string { return e.text }

func errIncomplete(limit time.Duration) error {
	return &slowError{fmt.Sprintf("no complete answer in %v", limit)}
}

// meter measures the throughput of one download over periods of at least the length
// window. It counts only the time in which the server could send.
type meter struct {
	floor  int64 // bytes per second
	window time.Duration

	spent time.Duration
	got   int64
}

// add records that n bytes took the time d. At the end of a period it returns a
// *slowError if there were fewer bytes than the floor, but some: a server that sends
// nothing has a timeout, and each timeout counts as a failure.
func (m *meter) add(d time.Duration, n int) error {
	m.spent += d
	m.got += int64(n)
	if m.spent < m.window {
		return nil
	}
	slow := m.got > 0 && float64(m.got) < float64(m.floor)*m.spent.Seconds()
	m.spent, m.got = 0, 0
	if !slow {
		return nil
	}
	return &slowError{fmt.Sprintf("less than %d bytes per second over %v (limits.min-rate)", m.floor, m.window)}
}
