package control

import (
	"errors"
	"io"
	"net"
	"testing"
)

// socketPair returns the two ends of a connection.
func socketPair(t *testing.T) (net.Conn, net.Conn) {
	t.Helper()
	a, file, err := StartPair()
	if err != nil {
		t.Fatal(err)
	}
	b, err := net.FileConn(file)
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		a.Close()
		b.Close()
	})
	return a, b
}

// TestPassClient passes a client, and the bytes that were read from it.
func TestPassClient(t *testing.T) {
	daemon, supervisor := socketPair(t)
	client, accepted := socketPair(t)
	if err := PassClient(daemon, accepted, []byte("read")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(accepted.Close(), daemon.Close()); err != nil {
		t.Fatal(err)
	}
	taken, read, err := TakeClient(supervisor)
	if err != nil {
		t.Fatal(err)
	}
	if string(read) != "read" {
		t.Errorf("bytes %q", read)
	}
	if _, err := io.WriteString(taken, "answer"); err != nil {
		t.Fatal(err)
	}
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(client); err != nil || string(got) != "answer" {
		t.Errorf("the client gets %q, %v", got, err)
	}
}

// TestTakeNoClient checks the errors for a peer that passes none.
func TestTakeNoClient(t *testing.T) {
	for name, send := range map[string]func(net.Conn) error{
		"the end":        net.Conn.Close,
		"bytes":          func(c net.Conn) error { _, err := c.Write([]byte("x")); return err },
		"many bytes":     func(c net.Conn) error { return PassClient(c, c, make([]byte, maxPassed)) },
		"no Unix socket": func(c net.Conn) error { a, b := net.Pipe(); return errors.Join(PassClient(c, a, nil), b.Close()) },
	} {
		t.Run(name, func(t *testing.T) {
			daemon, supervisor := socketPair(t)
			if err := send(daemon); err != nil {
				return // nothing was passed
			}
			if _, _, err := TakeClient(supervisor); err == nil {
				t.Error("a client was taken")
			}
		})
	}
}
