package daemon

import (
	"errors"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/machine/record"
)

func TestLogsThatBreakOff(t *testing.T) {
	f := newFakeMachines(t)
	f.add(idOne, "one", record.StateRunning)
	f.logErr = &api.Error{Code: api.CodeNoSpace, Message: "log is gone"}
	d := startDaemon(t, f)
	read := func() (n int, err error) {
		err = d.Logs(t.Context(), "one", api.LogsRequest{}, func(api.LogLine) error { n++; return nil })
		return n, err
	}
	if n, err := read(); n != 0 || codeOf(err) != api.CodeNoSpace {
		t.Errorf("before the first line: %d, %v", n, err)
	}
	f.logLines = []api.LogLine{{Stream: "stdout", Data: []byte("x")}}
	if n, err := read(); n != 1 || codeOf(err) != api.CodeNoSpace {
		t.Errorf("after the first line: %d, %v", n, err)
	}
	own := errors.New("the caller's")
	if err := d.Logs(t.Context(), "one", api.LogsRequest{}, func(api.LogLine) error { return own }); !errors.Is(err, own) {
		t.Errorf("error of the caller: %v", err)
	}
}
