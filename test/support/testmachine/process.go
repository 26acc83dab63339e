package testmachine

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
)

// A Process is a sleeping process that the test starts in the place of a monitor
// or of a supervisor.
type Process struct {
	pid  int
	kill func()
}

// StartProcess starts a process with the variables env in its environment. The
// end of the test kills it.
func StartProcess(t testing.TB, env ...string) *Process {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, "sleep", "1000")
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	p := &Process{cmd.Process.Pid, sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err == nil {
			t.Error("the process ended before it was killed")
		}
	})}
	t.Cleanup(p.kill)
	return p
}

// PID returns the process's ID.
func (p *Process) PID() int { return p.pid }

// Kill kills the process and waits for its end.
func (p *Process) Kill() { p.kill() }

// Alive reports whether the process has not been killed. The functions under test
// wait for the ends of the processes that they kill, so Alive does not wait.
func (p *Process) Alive(t testing.TB) bool {
	t.Helper()
	data, err := os.ReadFile("/proc/" + strconv.Itoa(p.PID()) + "/stat")
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	state := data[bytes.LastIndexByte(data, ')')+2] // the third field, see proc_pid_stat(5)
	return state != 'Z' && state != 'X'
}
