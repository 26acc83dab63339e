package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/vmm"
)

// A Machine is a running QEMU and the goroutines that serve it. They end when
// the process does.
type Machine struct {
	dir     string
	agent   bool
	cmd     *exec.Cmd
	qmp     *qmp
	console sync.WaitGroup
	stderr  tail
	asked   atomic.Bool   // Kill or Quit was called
	done    chan struct{} // closed when the process is reaped; then err is set
	err     error
}

// PID is the number of QEMU's process. Once Done is closed it may be another's.
func (m *Machine) PID() int { return m.cmd.Process.Pid }

// Done is closed when the process has ended and everything that it wrote has
// reached its writers.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Wait waits for Done. It is nil when the guest powered itself off or reset,
// and after Kill and Quit; otherwise the error is a *vmm.ExitError.
func (m *Machine) Wait() error {
	<-m.done
	return m.err
}

// Reset says, once Done is closed, whether the machine ended because the guest
// reset it, as it does when its kernel panics, rather than power it off.
func (m *Machine) Reset() bool {
	<-m.done
	return m.qmp.shutdownReason() == "guest-reset"
}

// Kill ends the process as a power cut would and waits for its end.
func (m *Machine) Kill() error {
	m.asked.Store(true)
	if err := m.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill virtual machine monitor: %w", err)
	}
	<-m.done
	return nil
}

// Quit makes QEMU write out the disks and end, without asking the guest, and
// waits for its end.
func (m *Machine) Quit(ctx context.Context) error {
	m.asked.Store(true)
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	err := m.qmp.execute(ctx, "quit", nil)
	if err != nil && !errors.Is(err, errClosed) { // it may be gone before it has answered
		return err
	}
	select {
	case <-m.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("quit virtual machine monitor: %w", ctx.Err())
	}
}

// Stop halts the guest's processors; Cont lets them go on.
func (m *Machine) Stop(ctx context.Context) error { return m.qmp.execute(ctx, "stop", nil) }

// Cont undoes Stop.
func (m *Machine) Cont(ctx context.Context) error { return m.qmp.execute(ctx, "cont", nil) }

// QueryStatus is the state of the machine, a RunState of QEMU's QMP reference
// such as running or paused.
func (m *Machine) QueryStatus(ctx context.Context) (string, error) {
	var answer struct {
		Status string `json:"status"`
	}
	err := m.qmp.execute(ctx, "query-status", &answer)
	return answer.Status, err
}

// DialAgent connects with the guest's serial port. It takes one client: a
// second connection gets its turn when the first is closed.
func (m *Machine) DialAgent(ctx context.Context) (net.Conn, error) {
	if !m.agent {
		return nil, errors.New("connect with agent: the machine has no port for one")
	}
	return dial(ctx, m.dir, agentSocket)
}

// own starts the process, waits for its end and sets m.err. The kernel kills
// the process when the thread that started it ends (Pdeathsig), so that the
// thread is kept until then.
func (m *Machine) own(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(m.done)
	err := m.cmd.Start()
	started <- err
	if err == nil {
		err = m.cmd.Wait()
	} else {
		hangUp(m.qmp.conn)
	}
	<-m.qmp.closed
	m.console.Wait()
	if !m.asked.Load() {
		m.err = m.exitError(err)
	}
}

func (m *Machine) exitError(err error) error {
	exit := (*exec.ExitError)(nil)
	if !errors.As(err, &exit) {
		return err
	}
	result := &vmm.ExitError{Code: exit.ExitCode(), Output: m.stderr.String()}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		result.Signal = unix.SignalName(status.Signal())
	}
	return result
}

// copyConsole passes the console on until the process ends. An error of w
// ends the copying and not the machine.
func (m *Machine) copyConsole(w io.Writer, conn net.Conn) {
	defer m.console.Done()
	defer hangUp(conn)
	if w != nil {
		if _, err := io.Copy(w, conn); err == nil {
			return
		}
	}
	_, _ = io.Copy(io.Discard, conn) // a connection that breaks has ended as well
}

// A tail keeps the last bytes that are written to it.
type tail struct{ kept []byte }

func (t *tail) Write(p []byte) (int, error) {
	const limit = 4 << 10
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - limit; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return string(bytes.TrimSpace(t.kept)) }

// ready waits until QEMU takes commands, which it does once it has opened all
// devices.
func (m *Machine) ready(ctx context.Context) error {
	const limit = 30 * time.Second // on a loaded host; 0.1 s on a free one
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case <-m.qmp.greeted:
		return m.qmp.execute(ctx, "qmp_capabilities", nil)
	case <-m.qmp.closed:
		return m.qmp.err
	case <-m.done:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}
