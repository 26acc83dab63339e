package supervisor

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/guest/client"
	"github.com/banger-vm/banger/internal/machine/control"
)

// connected returns both ends of a Unix socket's connection.
func connected(t *testing.T) (mine *subscriber, theirs *frames.Conn) {
	t.Helper()
	conn, file, err := control.StartPair()
	if err != nil {
		t.Fatal(err)
	}
	other, err := net.FileConn(file)
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		other.Close()
	})
	return &subscriber{conn: frames.New(conn), raw: conn}, frames.New(other)
}

func TestFanOutDropsClosedConnections(t *testing.T) {
	h := newFanOut()
	gone, goneEnd := connected(t)
	here, hereEnd := connected(t)
	other, _ := connected(t)
	gone.output, here.output = true, true
	for _, a := range []*subscriber{gone, here, other} {
		h.join(a)
	}
	if err := goneEnd.Close(); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"one", "two"} {
		if n, err := h.output(frames.Stdout).Write([]byte(text)); n != len(text) || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
		if f, err := hereEnd.Next(); err != nil || f.Kind != frames.Stdout || string(f.Payload) != text {
			t.Fatalf("frame %d %q, %v", f.Kind, f.Payload, err)
		}
	}
	if left := h.matching(func(*subscriber) bool { return true }); len(left) != 2 {
		t.Errorf("%d members are left, want the two that are here", len(left))
	}
}

func noProcess() *client.Process { return nil }

// TestReceiverEnds checks that input that is not read does not hide the end of a
// connection.
func TestReceiverEnds(t *testing.T) {
	mine, theirs := connected(t)
	reader, in := io.Pipe()
	r := receiver{conn: mine.conn, input: func() *io.PipeWriter { return in }, process: noProcess, once: true}
	var group sync.WaitGroup
	for range frames.Window {
		if err := theirs.Send(frames.Stdin, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := theirs.Close(); err != nil {
		t.Fatal(err)
	}
	r.receive(&group) // returns though nothing was read
	// The receiver passes on all input, then the end: no client can send more.
	got, err := io.ReadAll(reader)
	if err != nil || len(got) != frames.Window {
		t.Errorf("input %q, %v", got, err)
	}
	group.Wait()
}

func TestReceiverKeepsInputOpen(t *testing.T) {
	mine, theirs := connected(t)
	reader, in := io.Pipe()
	r := receiver{conn: mine.conn, input: func() *io.PipeWriter { return in }, process: noProcess}
	var group sync.WaitGroup
	if err := errors.Join(theirs.Send(frames.Stdin, []byte("x")), theirs.Close()); err != nil {
		t.Fatal(err)
	}
	r.receive(&group)
	go in.Write([]byte("y")) //nolint:errcheck // fails if it was closed, which the read shows
	got := make([]byte, 2)
	if _, err := io.ReadFull(reader, got); err != nil {
		t.Errorf("input %q, %v", got, err)
	}
	group.Wait()
}

// TestReceiverCredits checks that the client gets a credit for each frame that was
// passed on.
func TestReceiverCredits(t *testing.T) {
	mine, theirs := connected(t)
	reader, in := io.Pipe()
	r := receiver{conn: mine.conn, input: func() *io.PipeWriter { return in }, process: noProcess}
	var group sync.WaitGroup
	done := make(chan struct{})
	go func() { defer close(done); r.receive(&group) }()
	for _, frame := range []struct {
		kind frames.Kind
		data string
	}{{frames.Stdin, "abc"}, {frames.CloseStdin, ""}} {
		if err := theirs.Send(frame.kind, []byte(frame.data)); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := io.ReadAll(reader); err != nil || string(got) != "abc" {
		t.Errorf("input %q, %v", got, err)
	}
	for range 2 {
		if f, err := theirs.Next(); err != nil || f.Kind != frames.Credit {
			t.Errorf("frame of kind %d, %v; want a credit", f.Kind, err)
		}
	}
	if err := theirs.Close(); err != nil {
		t.Fatal(err)
	}
	<-done
	group.Wait()
}
