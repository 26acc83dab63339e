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

// A Machine is a running QEMU and the goroutines that serve it. The goroutines
// end when the process does.
type Machine struct {
	dir           string
	agent         bool
	cmd           *exec.Cmd
	confine       func() error // restricts the thread that starts QEMU
	qmp           *qmp
	console       sync.WaitGroup
	stderr        tail
	stopRequested atomic.Bool   // set by Kill and Quit
	done          chan struct{} // closed when the process is reaped and err is set
	err           error
}

// PID returns the process ID of QEMU. After Done is closed another process may
// have it.
func (m *Machine) PID() int { return m.cmd.Process.Pid }

// Done returns a channel that is closed when the process has ended and all of
// its output is written.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Wait waits for Done. It returns nil if the guest powered off or reset itself,
// and after Kill and Quit. Otherwise it returns a *vmm.ExitError.
func (m *Machine) Wait() error {
	<-m.done
	return m.err
}

// WasReset waits for Done and reports whether the guest reset the machine
// instead of powering it off. A guest resets the machine when its kernel
// panics.
func (m *Machine) WasReset() bool {
	<-m.done
	return m.qmp.shutdownReason() == "guest-reset"
}

// Kill ends the process like a power failure and waits until it has ended.
func (m *Machine) Kill() error {
	m.stopRequested.Store(true)
	if err := m.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill virtual machine monitor: %w", err)
	}
	<-m.done
	return nil
}

// Quit makes QEMU flush the disks and exit, without a notice to the guest, and
// waits until it has ended.
func (m *Machine) Quit(ctx context.Context) error {
	m.stopRequested.Store(true)
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	err := m.qmp.execute(ctx, "quit", nil)
	if err != nil && !errors.Is(err, errClosed) { // QEMU may exit before it answers
		return err
	}
	select {
	case <-m.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("quit virtual machine monitor: %w", ctx.Err())
	}
}

// Stop pauses the guest's processors.
func (m *Machine) Stop(ctx context.Context) error { return m.qmp.execute(ctx, "stop", nil) }

// Cont resumes the guest's processors.
func (m *Machine) Cont(ctx context.Context) error { return m.qmp.execute(ctx, "cont", nil) }

// QueryStatus returns the state of the machine: a RunState of QEMU's QMP
// reference, such as running or paused.
func (m *Machine) QueryStatus(ctx context.Context) (string, error) {
	var answer struct {
		Status string `json:"status"`
	}
	err := m.qmp.execute(ctx, "query-status", &answer)
	return answer.Status, err
}

// Changes returns a channel that has an element when the guest's processors may
// have stopped or resumed, for any reason. HostDiskFull reports the reason.
func (m *Machine) Changes() <-chan struct{} { return m.qmp.changed }

// HostDiskFull reports whether QEMU has stopped the guest's processors because the
// host has no space for what the guest writes to a disk. Cont repeats the write.
// That is QEMU's default, werror=enospc; the guest sees other errors of a disk.
func (m *Machine) HostDiskFull(ctx context.Context) (bool, error) {
	status, err := m.QueryStatus(ctx)
	return status == "io-error", err // RunState of QEMU's QMP reference
}

// DialAgent connects to the guest's serial port. The port serves one client at
// a time: a second connection waits until the first is closed.
func (m *Machine) DialAgent(ctx context.Context) (net.Conn, error) {
	if !m.agent {
		return nil, errors.New("connect with agent: the machine has no port for one")
	}
	return dial(ctx, m.dir, agentSocket)
}

// runProcess starts the process, waits for it to end and sets m.err. The kernel
// kills the process when the thread that started it ends (Pdeathsig), so
// runProcess keeps the thread until then. The process inherits the restrictions
// of the thread. They cannot be lifted, so the thread stays locked and ends with
// this goroutine; the runtime makes no other thread from it (LockOSThread).
func (m *Machine) runProcess(started chan<- error) {
	runtime.LockOSThread()
	defer close(m.done)
	err := m.confine()
	if err == nil {
		err = m.cmd.Start()
	}
	started <- err
	if err == nil {
		err = m.cmd.Wait()
	} else {
		m.qmp.conn.Close()
	}
	<-m.qmp.closed
	m.console.Wait()
	if !m.stopRequested.Load() {
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

// copyConsole copies the console until the process ends. An error of w ends the
// copying, but not the machine.
func (m *Machine) copyConsole(w io.Writer, conn net.Conn) {
	defer m.console.Done()
	defer conn.Close()
	if w != nil {
		if _, err := io.Copy(w, conn); err == nil {
			return
		}
	}
	_, _ = io.Copy(io.Discard, conn) // a connection that fails has ended too
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

// ready waits until QEMU accepts commands. It does so after it has opened all
// devices.
func (m *Machine) ready(ctx context.Context) error {
	const limit = 30 * time.Second // for a loaded host; an idle one needs 0.1 s
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
