package machine

import (
	"io"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/guest/client"
	"github.com/banger-vm/banger/internal/guest/link"
)

// guestOf is a guest's end of the port, whose streams are served by serve.
func guestOf(t *testing.T, port io.ReadWriteCloser, serve func(net.Conn)) {
	t.Helper()
	l := link.Listen(port)
	t.Cleanup(func() { l.Close() })
	go func() {
		s, err := l.Accept(t.Context())
		for err == nil {
			var stream net.Conn
			if stream, err = s.Accept(); err == nil {
				go serve(stream)
			}
		}
	}()
}

func openTestDoor(t *testing.T, serve func(net.Conn)) (d *door, visitor net.Conn) {
	t.Helper()
	host, port := net.Pipe()
	guestOf(t, port, serve)
	session, err := link.Connect(t.Context(), host)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if d, err = openDoor(dir, session, client.Keys{}); err != nil {
		t.Fatal(err)
	}
	var dialer net.Dialer
	if visitor, err = dialer.DialContext(t.Context(), "unix", filepath.Join(dir, doorFile)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { visitor.Close() })
	return d, visitor
}

func TestDoorLeadsBothWays(t *testing.T) {
	d, visitor := openTestDoor(t, func(s net.Conn) { io.Copy(s, s) }) //nolint:errcheck // ends with the test
	if _, err := io.WriteString(visitor, "hello"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(visitor, got); err != nil || string(got) != "hello" {
		t.Errorf("came back: %q, %v", got, err)
	}
	if err := d.close(); err != nil {
		t.Error(err)
	}
}

// TestDoorClosesOnAStuckVisitor: a visitor who has stopped reading, as a suspended ssh has, must not hold up the
// end of the machine.
func TestDoorClosesOnAStuckVisitor(t *testing.T) {
	var written atomic.Int64
	d, _ := openTestDoor(t, func(s net.Conn) {
		for {
			n, err := s.Write(make([]byte, 4096))
			if written.Add(int64(n)); err != nil {
				return
			}
		}
	})
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for last := int64(-1); written.Load() == 0 || written.Load() != last; <-tick.C {
		last = written.Load() // until all buffers are full
	}
	closed := make(chan error, 1)
	go func() { closed <- d.close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the door waits for its visitor")
	}
}
