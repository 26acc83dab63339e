package machine

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/guest/client"
)

// connected returns both ends of a Unix socket's connection.
func connected(t *testing.T) (mine *audience, theirs *frames.Conn) {
	t.Helper()
	conn, file, err := socketPair()
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
	return &audience{conn: frames.New(conn), raw: conn}, frames.New(other)
}

func TestHubDropsWhoIsGone(t *testing.T) {
	h := newHub()
	gone, goneEnd := connected(t)
	here, hereEnd := connected(t)
	other, _ := connected(t)
	gone.output, here.output = true, true
	for _, a := range []*audience{gone, here, other} {
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
	if left := h.those(func(*audience) bool { return true }); len(left) != 2 {
		t.Errorf("%d members are left, want the two that are here", len(left))
	}
}

func noProcess() *client.Process { return nil }

// TestListenerEnds: what nobody reads must not hide the end of a connection.
func TestListenerEnds(t *testing.T) {
	mine, theirs := connected(t)
	reader, in := io.Pipe()
	l := listener{conn: mine.conn, input: func() *io.PipeWriter { return in }, process: noProcess, once: true}
	var group sync.WaitGroup
	for range frames.Window {
		if err := theirs.Send(frames.Stdin, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := theirs.Close(); err != nil {
		t.Fatal(err)
	}
	l.listen(&group) // returns though nothing was read
	// All that came is passed on, and then the end, since nobody can send more.
	got, err := io.ReadAll(reader)
	if err != nil || len(got) != frames.Window {
		t.Errorf("input %q, %v", got, err)
	}
	group.Wait()
}

func TestListenerKeepsInputOpen(t *testing.T) {
	mine, theirs := connected(t)
	reader, in := io.Pipe()
	l := listener{conn: mine.conn, input: func() *io.PipeWriter { return in }, process: noProcess}
	var group sync.WaitGroup
	if err := errors.Join(theirs.Send(frames.Stdin, []byte("x")), theirs.Close()); err != nil {
		t.Fatal(err)
	}
	l.listen(&group)
	go in.Write([]byte("y")) //nolint:errcheck // fails if it was closed, which the read shows
	got := make([]byte, 2)
	if _, err := io.ReadFull(reader, got); err != nil {
		t.Errorf("input %q, %v", got, err)
	}
	group.Wait()
}

// TestListenerCredits: a client may send as much again as was taken.
func TestListenerCredits(t *testing.T) {
	mine, theirs := connected(t)
	reader, in := io.Pipe()
	l := listener{conn: mine.conn, input: func() *io.PipeWriter { return in }, process: noProcess}
	var group sync.WaitGroup
	done := make(chan struct{})
	go func() { defer close(done); l.listen(&group) }()
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
