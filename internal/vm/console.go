package vm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/banger-vm/banger/internal/guest"
)

// Bounds of a machine's console log.
const (
	logFileSize = 1 << 20 // bytes of one file; the one before it is kept too
	tailSize    = 16 << 10
)

// ConsoleLog is the console's file in a machine's folder; what it held before
// it was full is beside it, with ".1".
const ConsoleLog = "console.log"

// A console keeps what a machine writes to its console: the last two MiB in
// files, the end in memory. A log that cannot be written, as on a full disk,
// does not hold the machine up.
type console struct {
	mu     sync.Mutex
	path   string
	file   *os.File
	size   int64
	tail   []byte
	watch  chan []byte // to somebody who watches; nil for nobody
	failed error       // the first error of the file

	watched chan struct{} // closed when the watcher has seen all
}

// watchQueue is how many writes a watcher may be behind.
const watchQueue = 1024

// openConsole goes on with the log in the folder dir. The watcher, which may
// be nil, is written to beside the log, and never waited for but a moment at
// the end.
func openConsole(dir string, watcher io.Writer) (*console, error) {
	c := &console{path: filepath.Join(dir, ConsoleLog), watched: make(chan struct{})}
	if err := c.open(); err != nil {
		return nil, err
	}
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

func (c *console) open() error {
	f, err := os.OpenFile(c.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open console log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("open console log: %w", err)
	}
	c.file, c.size = f, info.Size()
	return nil
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
	if err := c.log(p); err != nil && c.failed == nil {
		c.failed = err
	}
	return len(p), nil
}

func (c *console) log(p []byte) error {
	if c.file == nil {
		return nil
	}
	if c.size+int64(len(p)) > logFileSize {
		if err := errors.Join(c.file.Close(), os.Rename(c.path, c.path+".1")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.file = nil
			return err
		}
		if err := c.open(); err != nil {
			c.file = nil
			return err
		}
	}
	n, err := c.file.Write(p)
	c.size += int64(n)
	return err
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
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file == nil {
		return c.failed
	}
	err := errors.Join(c.failed, c.file.Close())
	c.file = nil
	return err
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
