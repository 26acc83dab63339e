package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/base/frames"
)

func closeChecked(t *testing.T, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// sendJSON ignores a client that has closed the connection. The test checks the client.
func sendJSON(c *frames.Conn, kind frames.Kind, v any) { _ = c.SendJSON(kind, v) }

// serve listens on a socket and calls answer for the request of each connection.
func serve(t *testing.T, answer func(net.Conn, *http.Request)) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeChecked(t, l) })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer closeChecked(t, conn)
				if req, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					answer(conn, req)
				}
			}()
		}
	}()
	return &Client{Socket: path}
}

func respond(status, header, body string) func(net.Conn, *http.Request) {
	return func(c net.Conn, _ *http.Request) {
		fmt.Fprintf(c, "HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s", status, header, len(body), body)
	}
}

const ours = "Banger-Api: 1\r\n"

func TestAnswers(t *testing.T) {
	for _, row := range []struct {
		name   string
		answer func(net.Conn, *http.Request)
		code   ErrorCode // of an *Error, or "" for another error
		text   string
	}{
		{"an error", respond("409 Conflict", ours, `{"code":"running","message":"it runs"}`), CodeRunning, "it runs"},
		{"another protocol", respond("200 OK", "Banger-Api: 2\r\n", `{}`), CodeVersion, `version "2"`},
		{"a server that is no daemon", respond("200 OK", "", `{}`), CodeVersion, `version ""`},
		{"no JSON", respond("200 OK", ours, `<html>`), "", "ask daemon: invalid character"},
		{"an error without a message", respond("502 Bad Gateway", ours, `nginx`), "", "answered 502 Bad Gateway"},
		{"no HTTP", func(c net.Conn, _ *http.Request) { fmt.Fprint(c, "SSH-2.0\r\n\r\n") }, "", "malformed HTTP"},
		{"nothing", func(net.Conn, *http.Request) {}, "", "unexpected EOF"},
		{"a part", func(c net.Conn, _ *http.Request) {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\n"+ours+"Content-Length: 9\r\n\r\n{")
		}, "", "unexpected EOF"},
		{"a move", respond("301 Moved", ours+"Location: /\r\n", ""), "", "answered 301"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := serve(t, row.answer).List(t.Context(), ListRequest{})
			var code ErrorCode
			if e, ok := errors.AsType[*Error](err); ok {
				code = e.Code
			}
			if err == nil || code != row.code || !strings.Contains(err.Error(), row.text) {
				t.Errorf("%v (code %q), want %q (code %q)", err, code, row.text, row.code)
			}
		})
	}
}

func TestContextEndsARequest(t *testing.T) {
	arrived := make(chan struct{})
	held := make(chan struct{})
	t.Cleanup(func() { close(held) })
	c := serve(t, func(net.Conn, *http.Request) {
		close(arrived)
		<-held
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	if _, err := c.Wait(ctx, "web"); !errors.Is(err, context.Canceled) {
		t.Errorf("wait: %v", err)
	}
}

// TestEscaping sends references that would select another route if they were not escaped.
func TestEscaping(t *testing.T) {
	paths := make(chan string, 1)
	c := serve(t, func(conn net.Conn, r *http.Request) {
		paths <- r.RequestURI
		respond("200 OK", ours, "{}")(conn, r)
	})
	for ref, want := range map[string]string{"a/b": "a%2Fb", "a?b": "a%3Fb", "é": "%C3%A9", "%": "%25"} {
		if _, err := c.Inspect(t.Context(), ref); err != nil {
			t.Error(err)
		}
		if got := <-paths; got != "/v1/machines/"+want {
			t.Errorf("%q asks for %s", ref, got)
		}
	}
}

// upgrade answers with a stream of frames and passes it to do.
func upgrade(do func(*frames.Conn)) func(net.Conn, *http.Request) {
	return func(c net.Conn, _ *http.Request) {
		fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\n"+ours+"\r\n")
		do(frames.New(c))
	}
}

func TestProcess(t *testing.T) {
	exits := func(c *frames.Conn) { sendJSON(c, frames.Exit, Exit{Code: 4}) }
	for _, row := range []struct {
		name   string
		attach bool
		do     func(*frames.Conn)
		code   int
		err    string
	}{
		{"ready, without attaching", false, func(c *frames.Conn) { sendJSON(c, frames.Event, Event{Ready: true}) }, 0, ""},
		{"no frame, without attaching", false, func(*frames.Conn) {}, 0, ErrLost.Error()},
		{"an end, attached", true, exits, 4, ""},
		{"lost, attached", true, func(c *frames.Conn) { sendJSON(c, frames.Event, Event{Ready: true}) }, 0, ErrLost.Error()},
		{"an error", true, func(c *frames.Conn) { sendJSON(c, frames.Error, Error{Message: "no disk"}) }, 0, "no disk"},
		{"a frame of another direction", true, func(c *frames.Conn) { _ = c.Send(frames.Stdin, nil) }, 0, "frame of kind 2"},
		{"an end that is no JSON", true, func(c *frames.Conn) { _ = c.Send(frames.Exit, []byte("x")) }, 0, "decode frame"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := serve(t, upgrade(row.do))
			p, err := c.Start(t.Context(), "web", StartRequest{Attach: row.attach}, Stdio{})
			if err != nil {
				t.Fatal(err)
			}
			exit, err := p.Wait()
			if exit.Code != row.code || (err == nil) != (row.err == "") || err != nil && !strings.Contains(err.Error(), row.err) {
				t.Errorf("exit %+v, %v; want code %d, error %q", exit, err, row.code, row.err)
			}
			select {
			case <-p.Ready():
			default:
				t.Error("Ready is open after the end")
			}
		})
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("pipe is full") }

func TestOutputThatCannotBeWritten(t *testing.T) {
	c := serve(t, upgrade(func(c *frames.Conn) {
		for c.Send(frames.Stdout, []byte("x")) == nil {
		}
	}))
	p, err := c.Exec(t.Context(), "web", ExecRequest{}, Stdio{Out: brokenWriter{}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(); err == nil || !strings.Contains(err.Error(), "write output: pipe is full") {
		t.Errorf("wait: %v", err)
	}
}

// TestInputWindow checks that the client sends no more input than the window allows, so
// a signal behind the input reaches the command.
func TestInputWindow(t *testing.T) {
	counted := make(chan int, 1)
	c := serve(t, upgrade(func(c *frames.Conn) {
		for n := 0; ; {
			f, err := c.Next()
			if err != nil {
				return
			}
			switch f.Kind {
			case frames.Stdin:
				n++
			case frames.Signal:
				counted <- n
				sendJSON(c, frames.Exit, Exit{})
				return
			default:
			}
		}
	}))
	p, err := c.Exec(t.Context(), "web", ExecRequest{}, Stdio{In: endless{}})
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.After(10 * time.Second); len(p.room) < frames.Window; {
		select {
		case <-deadline:
			t.Fatal("the window does not fill")
		default:
		}
	}
	if err := p.Signal("TERM"); err != nil {
		t.Error(err)
	}
	if n := <-counted; n > frames.Window {
		t.Errorf("%d frames of input before the signal, want %d at most", n, frames.Window)
	}
	if _, err := p.Wait(); err != nil {
		t.Error(err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestEveryCodeHasAStatus(t *testing.T) {
	for code, want := range map[ErrorCode]int{
		CodeInvalid: 400, CodeNotFound: 404, CodeNoImage: 404, CodeNoKernel: 404, CodeNoCommand: 400, CodeNotBootable: 400,
		CodeNameTaken: 409, CodeRunning: 409, CodeNotRunning: 409, CodeBusy: 409, CodeVersion: 426, CodeTooMany: 429,
		CodeMissing: 501, CodeNoSpace: 507, CodeFailed: 502, CodeInternal: 500, "other": 500,
	} {
		if got := code.Status(); got != want {
			t.Errorf("%s: status %d, want %d", code, got, want)
		}
	}
}
