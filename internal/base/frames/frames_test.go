package frames

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

// pipe returns both ends of a connection. The end of the test closes them.
func pipe(t *testing.T) (a, b *Conn) {
	t.Helper()
	x, y := net.Pipe()
	t.Cleanup(func() {
		x.Close()
		y.Close()
	})
	return New(x), New(y)
}

func TestFrames(t *testing.T) {
	a, b := pipe(t)
	sent := make(chan error, 1)
	go func() {
		_, err := a.Writer(Stdout).Write(bytes.Repeat([]byte("x"), chunk+1))
		sent <- errors.Join(err, a.Send(CloseStdin, nil), a.SendJSON(Exit, map[string]int{"code": 7}), a.Close())
	}()
	for _, want := range []struct {
		kind Kind
		size int
	}{{Stdout, chunk}, {Stdout, 1}, {CloseStdin, 0}} {
		f, err := b.Next()
		if err != nil || f.Kind != want.kind || len(f.Payload) != want.size {
			t.Fatalf("frame of kind %d, %d bytes, error %v; want kind %d, %d bytes", f.Kind, len(f.Payload), err, want.kind, want.size)
		}
	}
	f, err := b.Next()
	var exit struct{ Code int }
	if err != nil || f.JSON(&exit) != nil || exit.Code != 7 {
		t.Errorf("last frame %q, %v", f.Payload, err)
	}
	if _, err := b.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v, want EOF", err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// fixed is a byte stream with a fixed content.
type fixed struct{ io.Reader }

func (fixed) Write(p []byte) (int, error) { return len(p), nil }
func (fixed) Close() error                { return nil }

func TestNextRefuses(t *testing.T) {
	for _, row := range []struct {
		name, bytes string
		want        error
	}{
		{"a length beyond the bound", "\x02\xff\xff\xff\xff", ErrTooLarge},
		{"a header cut off", "\x02\x00", io.ErrUnexpectedEOF},
		{"no payload", "\x02\x00\x00\x00\x01", io.ErrUnexpectedEOF},
		{"a payload cut off", "\x02\x00\x00\x00\x02x", io.ErrUnexpectedEOF},
	} {
		t.Run(row.name, func(t *testing.T) {
			if _, err := New(fixed{strings.NewReader(row.bytes)}).Next(); !errors.Is(err, row.want) {
				t.Errorf("error %v, want %v", err, row.want)
			}
		})
	}
	c := New(fixed{strings.NewReader("")})
	if err := c.Send(Stdin, make([]byte, MaxPayload+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("send: %v, want ErrTooLarge", err)
	}
}

func TestRelay(t *testing.T) {
	client, left := pipe(t)
	right, server := pipe(t)
	done := make(chan struct{})
	go func() { defer close(done); Relay(left, right) }()
	go client.Send(Stdin, []byte("hello"))
	if f, err := server.Next(); err != nil || string(f.Payload) != "hello" {
		t.Fatalf("frame %q, %v", f.Payload, err)
	}
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Next(); err == nil {
		t.Error("the client's side is still open")
	}
	<-done
}

func FuzzNext(f *testing.F) {
	f.Add([]byte("\x02\x00\x00\x00\x01x"))
	f.Add([]byte("\x0b\x00\x00\x00\x0a{\"code\":0}"))
	f.Add([]byte("\xff\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := New(fixed{bytes.NewReader(data)})
		for {
			frame, err := c.Next()
			if err != nil {
				return
			}
			if len(frame.Payload) > MaxPayload {
				t.Fatalf("payload of %d bytes", len(frame.Payload))
			}
		}
	})
}
