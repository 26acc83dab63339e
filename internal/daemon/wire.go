package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/banger-vm/banger/api"
)

// Bounds of a request and of its answer.
const (
	maxBody   = 1 << 20          // bytes
	bodyTime  = 30 * time.Second // for a request's body to come
	writeTime = 30 * time.Second // for an answer to be taken
)

func invalid(format string, args ...any) *api.Error {
	return &api.Error{Code: api.CodeInvalid, Message: fmt.Sprintf(format, args...)}
}

// decode reads the JSON body of a request into v, whose value stays as it is
// where there is none. A field that v does not have is refused, since the
// client means something by it.
func decode(w http.ResponseWriter, r *http.Request, v any) error {
	control := http.NewResponseController(w)
	control.SetReadDeadline(time.Now().Add(bodyTime)) //nolint:errcheck // without a connection, as in tests, none is needed
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err == nil {
		if _, err = dec.Token(); err == nil {
			err = errors.New("more than one value")
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return invalid("decode request: %v", err)
	}
	// The server watches the connection from here on: a deadline would look
	// like a client that has gone.
	control.SetReadDeadline(time.Time{}) //nolint:errcheck // likewise
	return nil
}

// query returns the parameters of a request, all of which are in known.
func query(r *http.Request, known ...string) (url.Values, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, invalid("decode query: %v", err)
	}
	for name := range values {
		if !slices.Contains(known, name) {
			return nil, invalid("decode query: %q is not known here", name)
		}
	}
	return values, nil
}

// flag returns a parameter that is true or false.
func flag(values url.Values, name string) (bool, error) {
	switch text := values.Get(name); text {
	case "true", "1":
		return true, nil
	case "false", "0", "":
		return false, nil
	default:
		return false, invalid("%s=%s: want true or false", name, text)
	}
}

// moment returns a parameter that is a time of RFC 3339, or the zero time.
func moment(values url.Values, name string) (time.Time, error) {
	text := values.Get(name)
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return t, invalid("%s=%s: want a time as 2006-01-02T15:04:05Z", name, text)
	}
	return t, nil
}

// number returns a parameter that is an integer.
func number(values url.Values, name string, otherwise int) (int, error) {
	text := values.Get(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, invalid("%s=%s: want a number", name, text)
	}
	return n, nil
}

// answer is the answer to a request that succeeded.
func answer(w http.ResponseWriter, v any) error {
	encode(w, http.StatusOK, v)
	return nil
}

// encode writes an answer. A client that does not take it is given up.
func encode(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil { // no type of package api can do that
		status, b = http.StatusInternalServerError, []byte(`{"code":"internal","message":"encode answer"}`)
	}
	control := http.NewResponseController(w)
	control.SetWriteDeadline(time.Now().Add(writeTime)) //nolint:errcheck // without a connection, as in tests, none is needed
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(b, '\n')) //nolint:errcheck // it is the client who has gone
}

// lines writes the values of an answer that has many, a line of JSON each.
type lines struct {
	w       http.ResponseWriter
	enc     *json.Encoder
	control *http.ResponseController
}

// newLines begins such an answer.
func newLines(w http.ResponseWriter) *lines {
	return &lines{w: w, enc: json.NewEncoder(w), control: http.NewResponseController(w)}
}

func (l *lines) begin() {
	l.w.Header().Set("Content-Type", "application/x-ndjson")
	l.w.WriteHeader(http.StatusOK)
}

func (l *lines) put(v any) error { return l.enc.Encode(v) }

// flush sends what has been put.
func (l *lines) flush() error {
	if err := l.control.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}
