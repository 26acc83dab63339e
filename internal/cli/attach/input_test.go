package attach

import (
	"errors"
	"io"
	"testing"

	"github.com/banger-vm/banger/api"
)

// A typist is an input. It signals the start of each read, which then waits for text.
type typist struct {
	reading chan struct{}
	text    chan string
}

func (r *typist) Read(p []byte) (int, error) {
	r.reading <- struct{}{}
	text, ok := <-r.text
	if !ok {
		return 0, io.EOF
	}
	return copy(p, text), nil
}

// TestInputOfConnections checks that a connection that has ended takes no input
// from the next one, also if it was reading when it ended.
func TestInputOfConnections(t *testing.T) {
	user := &typist{make(chan struct{}), make(chan string)}
	s := &Session{streams: api.Stdio{In: user}, opened: make(chan struct{}), done: make(chan struct{})}
	defer close(s.done)
	l := &loop{Session: s}
	l.openInput()
	close(s.opened)
	read := func(in io.Reader) <-chan string {
		result := make(chan string, 1)
		go func() {
			buf := make([]byte, 8)
			n, err := in.Read(buf)
			if err != nil {
				result <- err.Error()
				return
			}
			result <- string(buf[:n])
		}()
		return result
	}

	first, stop := l.connectionStreams()
	result := read(first.In)
	<-user.reading
	user.text <- "one"
	if got := <-result; got != "one" {
		t.Errorf("the first connection reads %q, want one", got)
	}
	result = read(first.In)
	<-user.reading
	stop()
	if got := <-result; got != "EOF" {
		t.Errorf("the first connection reads %q after its end, want EOF", got)
	}

	second, stop := l.connectionStreams()
	defer stop()
	user.text <- "two" // for the request of the first connection
	for range 100 {
		if got := <-read(first.In); got != "EOF" {
			t.Fatalf("the first connection reads %q after its end, want EOF", got)
		}
	}
	if got := <-read(second.In); got != "two" {
		t.Errorf("the second connection reads %q, want two", got)
	}
	result = read(second.In)
	<-user.reading
	close(user.text)
	if got := <-result; got != "EOF" {
		t.Errorf("the second connection reads %q at the end of the input, want EOF", got)
	}
}

// A countingReader counts its reads.
type countingReader struct{ reads int }

func (r *countingReader) Read(p []byte) (int, error) {
	r.reads++
	return copy(p, "x"), nil
}

// TestInputWaits checks that a session that ends before the command may have input
// reads none, although a connection has requested it.
func TestInputWaits(t *testing.T) {
	r := new(countingReader)
	s := &Session{streams: api.Stdio{In: r}, opened: make(chan struct{}), done: make(chan struct{})}
	l := &loop{Session: s}
	l.openInput()
	streams, stop := l.connectionStreams()
	defer stop()
	result := make(chan error)
	go func() {
		_, err := streams.In.Read(make([]byte, 1))
		result <- err
	}()
	close(s.done)
	if err := <-result; !errors.Is(err, io.EOF) || r.reads > 0 {
		t.Errorf("error %v after %d reads, want EOF after none", err, r.reads)
	}
}
