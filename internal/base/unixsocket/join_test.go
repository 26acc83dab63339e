package unixsocket

import (
	"io"
	"net"
	"testing"
)

// pair returns the two ends of a connection.
func pair(t *testing.T) (near, far *net.UnixConn) {
	t.Helper()
	l := listen(t, t.TempDir())
	near = dial(t, l)
	far, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	return near, far
}

// withoutCloseWrite is a connection that ends as a whole only.
type withoutCloseWrite struct{ io.ReadWriteCloser }

func writeText(t *testing.T, w io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
}

func wantAll(t *testing.T, r io.Reader, want string) {
	t.Helper()
	if got, err := io.ReadAll(r); err != nil || string(got) != want {
		t.Errorf("read %q, error %v; want %q", got, err, want)
	}
}

func TestJoinKeepsTheAnswerAfterTheRequestHasEnded(t *testing.T) {
	client, clientSide := pair(t)
	serverSide, server := pair(t)
	joined := make(chan struct{})
	go func() { defer close(joined); Join(clientSide, serverSide) }()
	writeText(t, client, "request")
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	wantAll(t, server, "request")
	writeText(t, server, "answer")
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	wantAll(t, client, "answer")
	<-joined
}

func TestJoinEndsWhenTheServerHasEnded(t *testing.T) {
	client, clientSide := pair(t)
	serverSide, server := pair(t)
	joined := make(chan struct{})
	go func() { defer close(joined); Join(clientSide, serverSide) }()
	if err := server.CloseWrite(); err != nil { // the client has not ended its direction
		t.Fatal(err)
	}
	<-joined
	wantAll(t, client, "")
	wantAll(t, server, "")
}

func TestJoinClosesAServerThatCannotEndOneDirection(t *testing.T) {
	client, clientSide := pair(t)
	serverSide, server := pair(t)
	joined := make(chan struct{})
	go func() { defer close(joined); Join(clientSide, withoutCloseWrite{serverSide}) }()
	writeText(t, client, "request")
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	wantAll(t, server, "request")
	<-joined
}
