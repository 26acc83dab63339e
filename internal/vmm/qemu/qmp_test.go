package qemu

import (
	"bufio"
	"errors"
	"strings"
	"testing"
)

func TestReadMessageLimit(t *testing.T) {
	for _, row := range []struct {
		length int
		ok     bool
	}{{maxMessage, true}, {maxMessage + 1, false}} {
		const frame = `{"event": ""}` + "\n"
		text := strings.Replace(frame, `""`, `"`+strings.Repeat("e", row.length-len(frame))+`"`, 1)
		m, err := readMessage(bufio.NewReaderSize(strings.NewReader(text), maxMessage))
		if (err == nil) != row.ok || row.ok && len(m.Event) != row.length-len(frame) {
			t.Errorf("%d bytes: %d, %v", len(text), len(m.Event), err)
		}
	}
	if _, err := readMessage(bufio.NewReader(strings.NewReader(`{"event": "CUT`))); !errors.Is(err, errClosed) {
		t.Errorf("a message cut short: %v", err)
	}
}

// FuzzReadMessage reads a connection to its end. Messages are bounded and
// reading ends for any input.
func FuzzReadMessage(f *testing.F) {
	for _, seed := range []string{
		`{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}` + "\n",
		`{"return": {"status": "running", "singlestep": false, "running": true}, "id": 2}` + "\n",
		`{"id": 1, "error": {"class": "CommandNotFound", "desc": "The command x has not been found"}}` + "\n",
		`{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}` + "\n{}\n",
		"{\"id\": -1}\n", "{\"id\": 1e99}\n", "null\n", "[]\n", "\n\n", "{\"event\"", strings.Repeat("[", 5000) + "\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		q := &qmp{greeted: make(chan struct{}), pending: map[uint64]chan message{1: make(chan message, 1)}}
		err := q.readAll(bufio.NewReaderSize(strings.NewReader(string(data)), 1<<10))
		if err == nil {
			t.Fatal("reading ended without an error")
		}
		if len(err.Error()) > 1<<10 {
			t.Fatalf("error of %d bytes", len(err.Error()))
		}
	})
}
