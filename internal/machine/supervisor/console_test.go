package supervisor

import (
	"errors"
	"testing"
	"time"
)

func TestConsoleTrouble(t *testing.T) {
	for _, row := range []struct{ name, text, want string }{
		{"the guest program's error", "[ 1.0] x\r\nbanger: error: mount root: no device\r\n[ 1.1] reboot: Power down\r\n", "mount root: no device"},
		{"a kernel panic", "[ 0.9] Kernel panic - not syncing: VFS: no root\r\n[ 0.9] more\r\n", "kernel panic: VFS: no root"},
		{"a panic for lack of memory", "[ 9.1] Kernel panic - not syncing: System is deadlocked on memory\r\n",
			"out of memory: kernel panic: System is deadlocked on memory"},
		{"the last line else", "one\r\ntwo\r\n\r\n", "two"},
		{"silence", "", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			c, err := openConsole(t.TempDir(), nil)
			if err != nil {
				t.Fatal(err)
			}
			c.Write([]byte(row.text)) //nolint:errcheck // never fails
			if got := c.trouble(); got != row.want {
				t.Errorf("trouble = %q, want %q", got, row.want)
			}
			if err := c.close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestConsoleOOM checks that the console notices the message of the OOM killer, also
// if it arrives in two parts, and forgets one of long ago.
func TestConsoleOOM(t *testing.T) {
	for _, row := range []struct {
		name  string
		parts []string
		want  bool
	}{
		{"in one part", []string{"[ 26.7] Out of memory: Killed process 161 (dd) total-vm:3992kB\r\n"}, true},
		{"in two parts", []string{"[ 26.7] Out of memory: Kil", "led process 161 (dd) total-vm:3992kB\r\n"}, true},
		{"another message", []string{"[ 26.7] Out of memory\r\n"}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			c, err := openConsole(t.TempDir(), nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range row.parts {
				c.Write([]byte(part)) //nolint:errcheck // never fails
			}
			if got := c.killedByOOM(); got != row.want {
				t.Errorf("killedByOOM = %v, want %v", got, row.want)
			}
			c.oom = c.oom.Add(-time.Hour)
			if c.killedByOOM() {
				t.Error("killedByOOM = true after an hour")
			}
			if err := c.close(); err != nil {
				t.Error(err)
			}
		})
	}
}

type brokenWriter struct{ calls int }

func (b *brokenWriter) Write([]byte) (int, error) {
	b.calls++
	return 0, errors.New("broken")
}

func TestConsoleWatcherMayLeave(t *testing.T) {
	watcher := new(brokenWriter)
	c, err := openConsole(t.TempDir(), watcher)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if n, err := c.Write([]byte("x")); n != 1 || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
	}
	if err := c.close(); err != nil {
		t.Error(err)
	}
	if watcher.calls != 1 {
		t.Errorf("a watcher that failed was called %d times", watcher.calls)
	}
}

// A stuckWriter blocks every Write until it is closed.
type stuckWriter chan struct{}

func (s stuckWriter) Write(p []byte) (int, error) {
	<-s
	return len(p), nil
}

// TestConsoleWatcherMayHang checks that a watcher that blocks does not block the
// guest.
func TestConsoleWatcherMayHang(t *testing.T) {
	watcher := make(stuckWriter)
	defer close(watcher)
	c, err := openConsole(t.TempDir(), watcher)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 * watchQueue {
		c.Write([]byte("x")) //nolint:errcheck // never fails
	}
	if err := c.close(); err != nil {
		t.Error(err)
	}
}
