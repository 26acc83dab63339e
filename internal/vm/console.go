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
	also   io.Writer // nil or somebody who watches
	failed error     // the first error of the file
}

// openConsole goes on with the log in the folder dir.
func openConsole(dir string, also io.Writer) (*console, error) {
	c := &console{path: filepath.Join(dir, ConsoleLog), also: also}
	return c, c.open()
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
	if c.also != nil {
		if _, err := c.also.Write(p); err != nil {
			c.also = nil // nobody watches any more
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
	c.mu.Lock()
	defer c.mu.Unlock()
	last := ""
	for line := range bytes.Lines(c.tail) {
		text := strings.TrimSpace(string(line))
		if at := strings.Index(text, guest.ErrorPrefix); at >= 0 {
			return text[at+len(guest.ErrorPrefix):]
		}
		if at := strings.Index(text, "Kernel panic - not syncing"); at >= 0 {
			return "kernel panic" + text[at+len("Kernel panic - not syncing"):]
		}
		// The kernel says so of every machine without a PCI bus.
		if text != "" && !strings.Contains(text, "PCI: Fatal: No config space access function found") {
			last = text
		}
	}
	return last
}
