package machine

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/guest/client"
)

// An ending is what has asked for a machine's end, the stronger one counts.
type ending int

const (
	byItself ending = iota
	byHost          // a signal to the supervisor: the host goes down
	byUser
	byKill // of a user, pulling the plug
)

// errAsked says that a boot was not begun, or was ended, since a user asked
// for the machine's end.
var errAsked = errors.New("the machine was stopped while it booted")

// begin notes how a boot is ended, unless a user has asked for the end.
func (v *supervisor) begin(cancel context.CancelFunc) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.cancel = cancel
	return v.asked == byItself
}

func (v *supervisor) wasAsked() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.asked != byItself
}

// stop ends the machine, in good order where it runs.
func (v *supervisor) stop(ctx context.Context, by ending, grace time.Duration) {
	if m := v.askEnd(by); m != nil {
		m.Stop(ctx, grace) //nolint:errcheck // it has ended in any case, and the record says how
	}
}

// kill ends the machine for a user as pulling the plug would.
func (v *supervisor) kill() {
	if m := v.askEnd(byKill); m != nil {
		m.Kill() //nolint:errcheck // likewise
	}
}

// askEnd notes what asks for the end, ends a boot, and returns the machine
// where it runs.
func (v *supervisor) askEnd(by ending) *Machine {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.asked = max(v.asked, by)
	if v.machine == nil && v.cancel != nil {
		v.cancel()
	}
	return v.machine
}

// openInput makes the next main command's standard input, where it is to have
// one. What is attached may write to it from now on.
func (v *supervisor) openInput() {
	if !v.journal.record().Config.Stdin {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.reader, v.stdin = io.Pipe()
}

// closeInput ends what still feeds it.
func (v *supervisor) closeInput() {
	if in := v.input(); in != nil {
		in.Close()
	}
}

// input is the main command's standard input, or nil.
func (v *supervisor) input() *io.PipeWriter {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.stdin
}

// command is the main command while it runs, or nil.
func (v *supervisor) command() *client.Process {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.main
}

func (v *supervisor) lastExit() api.Exit {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.exit
}

// running returns the machine while its agent answers.
func (v *supervisor) running() (*Machine, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.machine == nil {
		return nil, ErrNotRunning
	}
	return v.machine, nil
}
