package supervisor

import (
	"bytes"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/machine/logs"
)

// tailSize is the number of bytes of a console's end that are kept in memory.
const tailSize = 16 << 10

// A console keeps the output of a machine's console: the last two MiB in files,
// the end in memory. It never blocks the machine, even if the log cannot be
// written because the disk is full.
type console struct {
	log   *logs.File
	mu    sync.Mutex
	tail  []byte
	watch chan []byte // to the watcher; nil if there is none
	oom   time.Time   // of the kernel's last message that its OOM killer has ended a process

	watched chan struct{} // closed when the watcher has everything
}

// watchQueue is the number of writes that a watcher may be behind.
const watchQueue = 1024

// openConsole opens the log in the folder dir to append to it. It also writes to
// watcher, if that is not nil, and waits for it only at the end, for a moment.
func openConsole(dir string, watcher io.Writer) (*console, error) {
	log, err := logs.Open(filepath.Join(dir, logs.Console), logs.ConsoleSize)
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

// show writes the queue to the watcher until the queue is closed. After an error
// it discards the rest.
func (c *console) show(queue <-chan []byte, watcher io.Writer) {
	defer close(c.watched)
	var failed error
	for p := range queue {
		if failed == nil {
			_, failed = watcher.Write(p)
		}
	}
}

// Write takes the guest's output. It never fails.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tail = append(c.tail, p...)
	if bytes.Contains(c.tail[max(0, len(c.tail)-len(p)-len(oomKilled)):], []byte(oomKilled)) {
		c.oom = time.Now()
	}
	c.tail = c.tail[max(0, len(c.tail)-tailSize):]
	if c.watch != nil {
		select {
		case c.watch <- bytes.Clone(p):
		default: // a watcher that is too slow misses some
		}
	}
	return c.log.Stream(logs.StreamConsole).Write(p)
}

// note adds a line of banger's own.
func (c *console) note(text string) {
	c.Write([]byte(guest.NotePrefix + strings.ReplaceAll(text, "\n", "; ") + "\r\n")) //nolint:errcheck // never fails
}

// oomKilled begins the kernel's message that its OOM killer has ended a process:
// __oom_kill_process of mm/oom_kill.c.
const oomKilled = "Out of memory: Killed process"

// killedByOOM reports whether the kernel's OOM killer has ended a process just now.
func (c *console) killedByOOM() bool {
	const recent = 5 * time.Second // the time that the end of a process takes to arrive here
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Since(c.oom) < recent
}

// outOfMemory begins a panic's text with its cause if the kernel has panicked for
// lack of memory: out_of_memory of mm/oom_kill.c.
func outOfMemory(panicked string) string {
	if strings.Contains(panicked, "deadlocked on memory") || strings.Contains(panicked, "panic_on_oom") {
		return "out of memory: " + panicked
	}
	return panicked
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
	return c.log.Close()
}

// trouble returns the reason that the console gives for the guest's end: the
// guest program's error, the kernel's panic, or else the last line.
func (c *console) trouble() string {
	if why := c.failure(); why != "" {
		return why
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	last := ""
	for line := range bytes.Lines(c.tail) {
		text := strings.TrimSpace(string(line))
		// The kernel prints this line on every machine without a PCI bus.
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
			return outOfMemory("kernel panic" + why)
		}
	}
	return ""
}
