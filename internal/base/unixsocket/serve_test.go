package unixsocket

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

func listen(t *testing.T, dir string) *net.UnixListener {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "a.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func dial(t *testing.T, l net.Listener) *net.UnixConn {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: l.Addr().String(), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestLimitRefusesFurtherConnectionsUntilOneIsClosed(t *testing.T) {
	l := Limit(listen(t, t.TempDir()), 1, nil)
	dial(t, l)
	first, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn)
	go func() {
		defer close(accepted)
		if conn, err := l.Accept(); err == nil {
			accepted <- conn
		}
	}()
	wantAll(t, dial(t, l), "") // it is refused: no byte comes, and the connection ends
	for range 2 {              // the second one must not free a slot again
		first.Close()
	}
	dial(t, l)
	second, ok := <-accepted
	if !ok {
		t.Fatal("a connection within the limit was not accepted")
	}
	defer second.Close()
	go func() {
		if conn, err := l.Accept(); err == nil {
			t.Error("the second Close of a connection freed another slot")
			conn.Close()
		}
	}()
	wantAll(t, dial(t, l), "") // the limit still holds
}

func TestLimitCallsRefuse(t *testing.T) {
	inner := listen(t, t.TempDir())
	l := Limit(inner, 0, func(conn *net.UnixConn) {
		_, _ = io.WriteString(conn, "too many")
		conn.Close()
	})
	served := make(chan error)
	go func() { served <- Serve(l, func(net.Conn) { t.Error("a connection beyond the limit was served") }) }()
	wantAll(t, dial(t, l), "too many")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-served; !errors.Is(err, net.ErrClosed) {
		t.Errorf("error %v, want %v", err, net.ErrClosed)
	}
}

func TestServeWaitsForTheHandlers(t *testing.T) {
	l := listen(t, t.TempDir())
	entered, leave := make(chan struct{}), make(chan struct{})
	var left atomic.Bool
	served := make(chan error)
	go func() {
		served <- Serve(l, func(net.Conn) {
			close(entered)
			<-leave
			left.Store(true)
		})
	}()
	conn := dial(t, l)
	<-entered
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-served:
		t.Fatalf("Serve returned %v before its handler", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(leave)
	if err := <-served; !errors.Is(err, net.ErrClosed) || !left.Load() {
		t.Errorf("Serve returned %v, and the handler has returned: %v", err, left.Load())
	}
	wantAll(t, conn, "") // closed when its handler returned
}
