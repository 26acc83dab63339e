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
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/banger-vm/banger/internal/base/unixsocket"
)

// Headers of the handshake. Each request has the protocol version of the client. Each
// answer has that of the daemon and the version of its program.
const (
	HeaderAPI     = "Banger-Api"
	HeaderVersion = "Banger-Version"
)

// Protocol is the Upgrade header of a request that needs a stream of frames.
const Protocol = "banger-stream/1"

// ErrUnreachable reports that no daemon listens on the socket.
var ErrUnreachable = errors.New("no daemon listens")

// maxAnswer bounds the bytes of an answer that the client reads as a whole.
const maxAnswer = 64 << 20

// A Client sends requests to a daemon. Each request has a connection of its own, so a
// Client has nothing to close, and several goroutines may use it at once. If the daemon
// answers with an error, the error is an *Error.
type Client struct {
	Socket  string // path of the daemon's socket, of any length
	Program string // the calling program, such as "banger/1.2", for the daemon's log; may be ""
}

// Info returns the daemon's description. It works with every version of the protocol, so
// the caller can compare the version in the answer.
func (c *Client) Info(ctx context.Context) (info Info, err error) {
	err = c.call(ctx, request{method: http.MethodGet, path: "/v1/version", anyVersion: true}, &info)
	return info, err
}

// Shutdown asks the daemon to end. It works with every version of the protocol, and
// returns when the daemon has accepted the request. The machines continue to run.
func (c *Client) Shutdown(ctx context.Context) error {
	return c.call(ctx, request{method: http.MethodPost, path: "/v1/shutdown", anyVersion: true}, nil)
}

// OpenAPI returns the daemon's description of its protocol, a JSON document.
func (c *Client) OpenAPI(ctx context.Context) ([]byte, error) {
	var doc json.RawMessage
	err := c.call(ctx, request{method: http.MethodGet, path: "/v1/openapi.json", anyVersion: true}, &doc)
	return doc, err
}

// A request is a request to the daemon.
type request struct {
	method, path string
	query        url.Values
	body         any    // sent as JSON; nil for none
	upgrade      bool   // the connection becomes a stream
	ref          string // machine for the %s in path, if path has one
	anyVersion   bool   // accept an answer of another version of the protocol
}

// An answer is the response to a request. The caller closes its connection.
type answer struct {
	*http.Response
	conn net.Conn
	r    *bufio.Reader
}

// call sends a request and decodes its answer into v, or drops the answer if v is nil.
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

// with sends a request, calls read with the answer, and closes the connection.
func (c *Client) with(ctx context.Context, q request, read func(*answer) error) error {
	a, err := c.send(ctx, q)
	if err != nil {
		return err
	}
	defer a.conn.Close()
	stop := interrupt(ctx, a.conn)
	defer stop()
	return requestError(ctx, read(a))
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
				return &callerError{err}
			}
		}
	})
}

// A callerError is an error of a function of the caller, which gets it back unchanged.
type callerError struct{ error }

func (e *callerError) Unwrap() error { return e.error }

// send writes a request and reads the head of its answer, unless ctx ends first. It
// returns an error if the status of the answer is not a success.
func (c *Client) send(ctx context.Context, q request) (*answer, error) {
	req, err := c.build(ctx, q)
	if err != nil {
		return nil, err
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, requestError(ctx, err)
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
		return nil, requestError(ctx, err)
	}
	return a, nil
}

// interrupt makes the calls on conn fail if ctx ends before stop is called.
func interrupt(ctx context.Context, conn net.Conn) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		conn.SetDeadline(time.Unix(1, 0))
	})
}

// requestError wraps an error of a request. It replaces the error of a connection that
// the end of ctx has interrupted by the error of ctx, and keeps errors of the caller and
// of the daemon unchanged.
func requestError(ctx context.Context, err error) error {
	if own, ok := errors.AsType[*callerError](err); ok {
		return own.error
	}
	if _, ok := errors.AsType[*Error](err); err == nil || ok {
		return err
	}
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case isGone(err) || errors.Is(err, io.ErrUnexpectedEOF):
		err = fmt.Errorf("%w: %w", ErrLost, err)
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

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	conn, err := unixsocket.In(filepath.Dir(c.Socket), filepath.Base(c.Socket), func(path string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%w on %s", ErrUnreachable, c.Socket)
	}
	return conn, err
}

func exchange(conn net.Conn, req *http.Request) (*answer, error) {
	// A daemon that refuses a request may answer before it has read all of it.
	writeErr := req.Write(conn)
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, req) //nolint:bodyclose // the caller closes the connection
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

// check returns an error if the daemon speaks another version of the protocol, and the
// *Error of an answer that is not a success.
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
