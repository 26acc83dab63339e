package daemon

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/banger-vm/banger/api"
)

// writeTime is how long a client may take to receive an answer.
const writeTime = 30 * time.Second

// answer answers a request that has succeeded with v.
func answer(w http.ResponseWriter, v any) error {
	encode(w, http.StatusOK, v)
	return nil
}

// encode answers a request with v as JSON. A client that does not receive the
// answer in time loses its connection.
func encode(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil { // impossible for the types of package api
		status, b = http.StatusInternalServerError, []byte(`{"code":"internal","message":"encode answer"}`)
	}
	setDeadline(http.NewResponseController(w).SetWriteDeadline, writeTime)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // fails only if the client has disconnected
}

// jsonLines writes an answer of any number of values, each as a line of JSON.
type jsonLines struct {
	w       http.ResponseWriter
	enc     *json.Encoder
	control *http.ResponseController
	request *http.Request
	begun   bool // the header is written
}

func newJSONLines(w http.ResponseWriter, r *http.Request) *jsonLines {
	return &jsonLines{w: w, enc: json.NewEncoder(w), control: http.NewResponseController(w), request: r}
}

// begin writes the header of the answer, if it is not written yet.
func (l *jsonLines) begin() {
	if l.begun {
		return
	}
	l.begun = true
	l.w.Header().Set("Content-Type", "application/x-ndjson")
	l.w.WriteHeader(http.StatusOK)
}

// put writes a value. It may stay in a buffer until flush.
func (l *jsonLines) put(v any) error {
	l.begin()
	return l.enc.Encode(v)
}

// flush sends the values that put has written.
func (l *jsonLines) flush() error {
	if err := l.control.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// end ends the answer and returns err. If err comes after the header, end writes it
// as the last line, since the status cannot change any more.
func (l *jsonLines) end(err error) error {
	if err == nil {
		l.begin()
		return nil
	}
	if l.begun {
		_ = l.put(api.StreamError{Error: explain(l.request, err)}) // fails only if the client has disconnected
	}
	return err
}
