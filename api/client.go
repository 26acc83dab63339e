package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Headers of the handshake. Every request says which protocol its sender
// speaks, every answer which one the daemon does, and the daemon's version.
const (
	HeaderAPI     = "Banger-Api"
	HeaderVersion = "Banger-Version"
)

// Protocol is what a request that needs a stream upgrades to.
const Protocol = "banger-stream/1"

// ErrUnreachable says that no daemon listens on the socket.
var ErrUnreachable = errors.New("no daemon listens")

// maxAnswer bounds the size in bytes of an answer that is read as a whole.
const maxAnswer = 64 << 20

// A Client asks a daemon. Each request has a connection of its own, so that a
// Client has nothing to close and may be used by several goroutines. Errors
// that the daemon answers are *Error.
type Client struct {
	Socket  string // of the daemon; its path may be of any length
	Program string // who asks, as "banger/1.2", for the daemon's log; may be ""
}

// Info asks what the daemon is. It succeeds with a daemon of another protocol
// too, so that its caller can tell.
func (c *Client) Info(ctx context.Context) (info Info, err error) {
	err = c.call(ctx, request{method: http.MethodGet, path: "/v1/version", anyVersion: true}, &info)
	return info, err
}

// Shutdown asks the daemon to end, whichever protocol it speaks. It returns
// when the daemon has agreed. Machines go on.
func (c *Client) Shutdown(ctx context.Context) error {
	return c.call(ctx, request{method: http.MethodPost, path: "/v1/shutdown", anyVersion: true}, nil)
}

// OpenAPI returns the daemon's description of its protocol, a JSON document.
func (c *Client) OpenAPI(ctx context.Context) ([]byte, error) {
	var doc json.RawMessage
	err := c.call(ctx, request{method: http.MethodGet, path: "/v1/openapi.json", anyVersion: true}, &doc)
	return doc, err
}

// A request is one to the daemon.
type request struct {
	method, path string
	query        url.Values
	body         any    // sent as JSON; nil for none
	upgrade      bool   // the connection becomes a stream
	ref          string // of the machine, where path has %s for it
	anyVersion   bool   // of the protocol may answer
}

// An answer is what came back, on a connection that is the caller's.
type answer struct {
	*http.Response
	conn net.Conn
	r    *bufio.Reader
}

// call sends a request and decodes its answer into v; nil drops it.
func (c *Client) call(ctx context.Context, q request, v any) error {
	return c.with(ctx, q, func(a *answer) error {
		if v == nil {
			return nil
		}
		b, err := io.ReadAll(io.LimitReader(a.Body, maxAnswer+1))
		if err != nil {
			return err
		}
		if len(b) > maxAnswer {
			return fmt.Errorf("its answer has more than %d bytes", maxAnswer)
		}
		return json.Unmarshal(b, v)
	})
}

// with sends a request and has read take its answer.
func (c *Client) with(ctx context.Context, q request, read func(*answer) error) error {
	a, err := c.send(ctx, q)
	if err != nil {
		return err
	}
	defer a.conn.Close()
	stop := interrupt(ctx, a.conn)
	defer stop()
	return because(ctx, read(a))
}

// lines sends a request and calls each with the lines of its answer.
func (c *Client) lines(ctx context.Context, q request, each func(line []byte) error) error {
	return c.with(ctx, q, func(a *answer) error {
		dec := json.NewDecoder(a.Body)
		for {
			var line json.RawMessage
			if err := dec.Decode(&line); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			var broken StreamError
			if err := json.Unmarshal(line, &broken); err != nil {
				return err
			}
			if broken.Error != nil {
				return broken.Error
			}
			if err := each(line); err != nil {
				return &ownError{err}
			}
		}
	})
}

// An ownError is one of the caller's own, which is given back as it is.
type ownError struct{ error }

func (e *ownError) Unwrap() error { return e.error }

// send writes a request and reads the head of its answer. ctx bounds that
// much. An answer that is no success is an error.
func (c *Client) send(ctx context.Context, q request) (*answer, error) {
	req, err := c.build(ctx, q)
	if err != nil {
		return nil, err
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, because(ctx, err)
	}
	stop := interrupt(ctx, conn)
	a, err := exchange(conn, req)
	if err == nil {
		err = a.check(q)
	}
	if !stop() && err == nil { // the connection's deadline may have passed
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, because(ctx, err)
	}
	return a, nil
}

// interrupt breaks what is going on on conn off when ctx ends before stop is
// called.
func interrupt(ctx context.Context, conn net.Conn) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		conn.SetDeadline(time.Unix(1, 0))
	})
}

// because says that it was the daemon that was asked, and prefers the reason
// for an interrupted request to what it did to the connection.
func because(ctx context.Context, err error) error {
	if own, ok := errors.AsType[*ownError](err); ok {
		return own.error
	}
	if _, ok := errors.AsType[*Error](err); err == nil || ok {
		return err
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return fmt.Errorf("ask daemon: %w", err)
}

func (c *Client) build(ctx context.Context, q request) (*http.Request, error) {
	path := q.path
	if strings.Contains(path, "%s") {
		if q.ref == "" || q.ref == "." || q.ref == ".." { // they would name another route
			return nil, &Error{Code: CodeNotFound, Message: fmt.Sprintf("machine %q: no such machine", q.ref)}
		}
		path = fmt.Sprintf(path, url.PathEscape(q.ref))
	}
	if len(q.query) > 0 {
		path += "?" + q.query.Encode()
	}
	var body io.Reader
	if q.body != nil {
		b, err := json.Marshal(q.body)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, q.method, "http://banger"+path, body)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set(HeaderAPI, strconv.Itoa(Version))
	req.Header.Set("User-Agent", c.Program)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if q.upgrade {
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", Protocol)
	} else {
		req.Close = true
	}
	return req, nil
}

// maxAddress is what a socket's address has room for (unix(7)), with its
// final NUL.
const maxAddress = 108

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	path := c.Socket
	if len(path) >= maxAddress {
		dir, err := os.Open(filepath.Dir(path))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w on %s", ErrUnreachable, c.Socket)
		}
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		path = "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + filepath.Base(path)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%w on %s", ErrUnreachable, c.Socket)
	}
	return conn, err
}

func exchange(conn net.Conn, req *http.Request) (*answer, error) {
	// A daemon that refuses a request may do so before it has read it all.
	writeErr := req.Write(conn)
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, req) //nolint:bodyclose // it ends with the connection
	if err != nil {
		if writeErr != nil {
			err = writeErr
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return &answer{resp, conn, r}, nil
}

// check refuses a daemon of another protocol, and turns what it refuses into
// an error.
func (a *answer) check(q request) error {
	if got := a.Header.Get(HeaderAPI); !q.anyVersion && got != strconv.Itoa(Version) {
		return &Error{Code: CodeVersion, Message: fmt.Sprintf(
			"the daemon speaks version %q of the protocol, this program version %d", got, Version)}
	}
	want := a.StatusCode >= http.StatusOK && a.StatusCode < http.StatusMultipleChoices
	if q.upgrade {
		want = a.StatusCode == http.StatusSwitchingProtocols
	}
	if want {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(a.Body, maxAnswer))
	if err != nil {
		return err
	}
	e := new(Error)
	if json.Unmarshal(b, e) != nil || e.Message == "" {
		return fmt.Errorf("answered %s", a.Status)
	}
	return e
}
