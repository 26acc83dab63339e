package daemon

import (
	"sync"
	"time"
)

// An idleClock tells when nothing has been going on for a while.
type idleClock struct {
	after   time.Duration // 0: never
	expired chan struct{} // closed then

	mu     sync.Mutex
	active int
	timer  *time.Timer
}

// newIdleClock starts one.
func newIdleClock(after time.Duration) *idleClock {
	c := &idleClock{after: after, expired: make(chan struct{})}
	c.begin()
	c.end()
	return c
}

func (c *idleClock) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active++
	if c.timer != nil {
		c.timer.Stop()
	}
}

func (c *idleClock) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active--
	if c.active > 0 || c.after == 0 {
		return
	}
	c.timer = time.AfterFunc(c.after, c.expire)
}

// expire may come after a begin that was too late to stop the timer, and
// after another expire.
func (c *idleClock) expire() {
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
