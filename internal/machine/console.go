package machine

import (
	"bytes"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/banger-vm/banger/internal/guest"
)

// tailSize is how many bytes of a console's end are kept in memory.
const tailSize = 16 << 10

// A console keeps what a machine writes to its console: the last two MiB in
// files, the end in memory. A log that cannot be written, as on a full disk,
// does not hold the machine up.
type console struct {
	log   *logFile
	mu    sync.Mutex
	tail  []byte
	watch chan []byte // to somebody who watches; nil for nobody

	watched chan struct{} // closed when the watcher has seen all
}

// watchQueue is how many writes a watcher may be behind.
const watchQueue = 1024

// openConsole goes on with the log in the folder dir. The watcher, which may
// be nil, is written to beside the log, and never waited for but a moment at
// the end.
func openConsole(dir string, watcher io.Writer) (*console, error) {
	log, err := openLog(filepath.Join(dir, ConsoleLog), consoleLogSize)
	if err != nil {
		return nil, err
	}
	c := &console{log: log, watched: make(chan struct{})}
	if watcher == nil {
		close(c.watched)
		return c, nil
	}
	c.watch = make(chan []byte, watchQueue)
	go c.show(c.watch, watcher)
	return c, nil
}

// show ends with the queue. After an error of the watcher it only empties it.
func (c *console) show(queue <-chan []byte, watcher io.Writer) {
	defer close(c.watched)
	var failed error
	for p := range queue {
		if failed == nil {
			_, failed = watcher.Write(p)
		}
	}
}

// Write takes what the guest wrote. It never fails.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tail = append(c.tail, p...)
	c.tail = c.tail[max(0, len(c.tail)-tailSize):]
	if c.watch != nil {
		select {
		case c.watch <- bytes.Clone(p):
		default: // a watcher who does not keep up misses some
		}
	}
	c.log.add(time.Now(), streamConsole, p)
	return len(p), nil
}

func (c *console) close() error {
	c.mu.Lock()
	if c.watch != nil {
		close(c.watch)
		c.watch = nil
	}
	c.mu.Unlock()
	const moment = time.Second
	select {
	case <-c.watched:
	case <-time.After(moment): // the watcher does not read; its goroutine ends with its Write
	}
	return c.log.close()
}

// trouble returns what the guest said of its end: the guest program's error,
// the kernel's panic, or else the last line there is.
func (c *console) trouble() string {
	if why := c.failure(); why != "" {
		return why
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	last := ""
	for line := range bytes.Lines(c.tail) {
		text := strings.TrimSpace(string(line))
		// The kernel says so of every machine without a PCI bus.
		if text != "" && !strings.Contains(text, "PCI: Fatal: No config space access function found") {
			last = text
		}
	}
	return last
}

// failure returns the guest program's error or the kernel's panic, or "".
func (c *console) failure() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	const panicked = "Kernel panic - not syncing"
	for line := range bytes.Lines(c.tail) {
		text := strings.TrimSpace(string(line))
		if _, why, ok := strings.Cut(text, guest.ErrorPrefix); ok {
			return why
		}
		if _, why, ok := strings.Cut(text, panicked); ok {
			return "kernel panic" + why
		}
	}
	return ""
}
