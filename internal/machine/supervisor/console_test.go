package supervisor

import (
	"errors"
	"testing"
)

func TestConsoleTrouble(t *testing.T) {
	for _, row := range []struct{ name, text, want string }{
		{"the guest program's error", "[ 1.0] x\r\nbanger: error: mount root: no device\r\n[ 1.1] reboot: Power down\r\n", "mount root: no device"},
		{"a kernel panic", "[ 0.9] Kernel panic - not syncing: VFS: no root\r\n[ 0.9] more\r\n", "kernel panic: VFS: no root"},
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
