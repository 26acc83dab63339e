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

// Limits of a request's body.
const (
	maxBody  = 16 << 20         // bytes; a command's arguments of 2 MiB (ARG_MAX), in JSON
	bodyTime = 30 * time.Second // until the body has arrived
)

// invalid returns the error for a request that cannot be carried out as it is.
func invalid(format string, args ...any) *api.Error {
	return &api.Error{Code: api.CodeInvalid, Message: fmt.Sprintf(format, args...)}
}

// decode reads the JSON body of a request into v. If the body is empty, v keeps its
// value. It returns an error if the body has a field that v does not have, because
// the client expects an effect of it.
func decode(w http.ResponseWriter, r *http.Request, v any) error {
	control := http.NewResponseController(w)
	setDeadline(control.SetReadDeadline, bodyTime)
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
	// From here on the HTTP server reads from the connection to see whether the
	// client disconnects. It would take an expired deadline for a disconnect.
	setDeadline(control.SetReadDeadline, 0)
	return nil
}

// setDeadline calls set with the time after limit from now, or with no deadline if
// limit is 0. It ignores the error: only the writers of tests, which have no
// connection, return one.
func setDeadline(set func(time.Time) error, limit time.Duration) {
	var deadline time.Time
	if limit > 0 {
		deadline = time.Now().Add(limit)
	}
	_ = set(deadline)
}

// query returns the parameters of a request's query. It returns an error if there
// is one that is not in known.
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

// boolParam returns a parameter that is true or false. If it is missing, it is
// false.
func boolParam(values url.Values, name string) (bool, error) {
	switch text := values.Get(name); text {
	case "true", "1":
		return true, nil
	case "false", "0", "":
		return false, nil
	default:
		return false, invalid("%s=%s: want true or false", name, text)
	}
}

// timeParam returns a parameter that is a time of RFC 3339. If it is missing, the
// time is zero.
func timeParam(values url.Values, name string) (time.Time, error) {
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

// intParam returns a parameter that is an integer. If it is missing, intParam
// returns missing.
func intParam(values url.Values, name string, missing int) (int, error) {
	text := values.Get(name)
	if text == "" {
		return missing, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, invalid("%s=%s: want a number", name, text)
	}
	return n, nil
}
