package supervisor

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/guest/client"
	"github.com/banger-vm/banger/internal/machine/control"
	"github.com/banger-vm/banger/internal/machine/record"
)

// pausedInstance returns a machine that stands still and whose agent never answers.
func pausedInstance(t *testing.T, reason string) *instance {
	t.Helper()
	m := &instance{record: new(record.Record), dir: &record.Folder{Data: t.TempDir()}}
	m.record.Config.Name = "box"
	m.paused.set(reason)
	return m
}

func TestPause(t *testing.T) {
	var p pause
	if p.lasting(0) != "" || p.set("") {
		t.Error("the zero pause has a reason")
	}
	if !p.set("full") || p.set("full") || p.lasting(0) != "full" || p.lasting(time.Hour) != "" {
		t.Error("a pause that has just begun")
	}
	if !p.set("") || p.lasting(0) != "" {
		t.Error("a pause that has ended")
	}
}

// silentStart starts nothing and waits until ctx ends, as the start of a command
// does in a guest that does not answer.
func silentStart(ctx context.Context, _ client.Stdio) (*client.Process, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestExecInSilentMachine starts a command in a machine that does not answer. The
// client gets an error when the machine has stood still for a moment, and at once
// when it asks for an end.
func TestExecInSilentMachine(t *testing.T) {
	for _, row := range []struct {
		name, reason, signal, want string
		code                       api.ErrorCode
	}{
		{"the host's disk is full", control.HostDiskFull, "", "paused (host disk full)", api.CodeNoSpace},
		{"the client asks for an end", "", "TERM", "interrupted", api.CodeFailed},
	} {
		t.Run(row.name, func(t *testing.T) {
			mine, theirs := connected(t)
			begin := time.Now()
			served := make(chan error, 1)
			go func() {
				served <- serveProcess(t.Context(), pausedInstance(t, row.reason), mine, true, nil, silentStart)
			}()
			conn := theirs
			if row.signal != "" {
				if err := conn.Send(frames.Signal, []byte(row.signal)); err != nil {
					t.Fatal(err)
				}
			}
			var failure api.Error
			frame, err := conn.Next()
			if err == nil {
				err = frame.JSON(&failure)
			}
			if err != nil || frame.Kind != frames.Error || failure.Code != row.code || !strings.Contains(failure.Message, row.want) {
				t.Errorf("frame of kind %d: %+v (%v)", frame.Kind, failure, err)
			}
			if took := time.Since(begin); took > pausePatience+5*time.Second {
				t.Errorf("the error came after %v", took)
			}
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestProbe asks a machine that stands still, which needs no answer of its agent.
func TestProbe(t *testing.T) {
	err := pausedInstance(t, control.HostDiskFull).probe(t.Context())
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "machine box is paused (host disk full)") {
		t.Errorf("probe: %v", err)
	}
}
