package daemon

import (
	"sync"
	"time"
)

// An idleTimer expires when the daemon has been idle for a while.
type idleTimer struct {
	after   time.Duration // 0 for a timer that never expires
	expired chan struct{} // closed when the timer expires

	mu     sync.Mutex
	active int // number of activities in progress
	timer  *time.Timer
}

// newIdleTimer starts a timer without activities.
func newIdleTimer(after time.Duration) *idleTimer {
	c := &idleTimer{after: after, expired: make(chan struct{})}
	c.begin()
	c.end()
	return c
}

// begin marks the beginning of an activity.
func (c *idleTimer) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active++
	if c.timer != nil {
		c.timer.Stop()
	}
}

// end marks the end of an activity. If it was the last one, the timer starts.
func (c *idleTimer) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active--
	if c.active > 0 || c.after == 0 {
		return
	}
	c.timer = time.AfterFunc(c.after, c.expire)
}

// expire closes expired. The timer may call it although begin has stopped the timer,
// if both happen at the same time, and more than once.
func (c *idleTimer) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.active > 0 {
		return
	}
	select {
	case <-c.expired:
	default:
		close(c.expired)
	}
}
