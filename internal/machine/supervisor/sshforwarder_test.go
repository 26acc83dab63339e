package supervisor

import (
	"io"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/guest/client"
	"github.com/banger-vm/banger/internal/guest/link"
	"github.com/banger-vm/banger/internal/machine/control"
)

// serveGuest serves the guest's end of the port: serve gets each stream.
func serveGuest(t *testing.T, port io.ReadWriteCloser, serve func(net.Conn)) {
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

func openTestForwarder(t *testing.T, serve func(net.Conn)) (f *sshForwarder, conn net.Conn) {
	t.Helper()
	host, port := net.Pipe()
	serveGuest(t, port, serve)
	session, err := link.Connect(t.Context(), host)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if f, err = forwardSSH(dir, session, client.Keys{}); err != nil {
		t.Fatal(err)
	}
	var dialer net.Dialer
	if conn, err = dialer.DialContext(t.Context(), "unix", filepath.Join(dir, control.SSHFile)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return f, conn
}

func TestForwarderCopiesBothWays(t *testing.T) {
	f, conn := openTestForwarder(t, func(s net.Conn) { io.Copy(s, s) })
	if _, err := io.WriteString(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "hello" {
		t.Errorf("came back: %q, %v", got, err)
	}
	if err := f.close(); err != nil {
		t.Error(err)
	}
}

// TestForwarderClosesStuckConnections checks that a client that does not read, such as a suspended ssh, does not
// delay the end of the machine.
func TestForwarderClosesStuckConnections(t *testing.T) {
	var written atomic.Int64
	f, _ := openTestForwarder(t, func(s net.Conn) {
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
	go func() { closed <- f.close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the forwarder waits for its client")
	}
}
