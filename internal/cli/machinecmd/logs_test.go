package machinecmd

import (
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
)

// TestLogPosition loses the daemon after each line of a log, and checks that the next
// one goes on with the line after it, also among lines of the same time.
func TestLogPosition(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var log []api.LogLine
	for _, second := range []int{1, 2, 2, 2, 3, 3, 5} {
		log = append(log, api.LogLine{Time: start.Add(time.Duration(second) * time.Second)})
	}
	p := &logPosition{began: start}
	for printed := 0; printed < len(log); printed++ {
		req := p.resume(api.LogsRequest{Follow: true, Tail: -1})
		for i, line := range log {
			if line.Time.Before(req.Since) {
				continue
			}
			if p.isNew(line) {
				if i != printed {
					t.Fatalf("line %d is printed after %d lines", i, printed)
				}
				break // the daemon ends
			}
		}
	}
	// Without lines at first, no line that comes later is missing.
	p = &logPosition{began: start}
	p.resume(api.LogsRequest{Tail: 0})
	if req := p.resume(api.LogsRequest{Tail: 0}); req.Tail != -1 || !req.Since.Equal(start) {
		t.Errorf("request %+v, want all lines since the first request", req)
	}
}
