package boot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/guest/control"
)

// rootedWait is how long the agent may take to change its root.
const rootedWait = 20 * time.Second

// startAgent starts the agent before the root file system is mounted, so that
// the host connects to it at the same time.
func (m *machine) startAgent() error {
	own, theirs, err := control.Pair()
	if err != nil {
		return err
	}
	defer theirs.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return errors.Join(fmt.Errorf("start agent: %w", err), own.Close())
	}
	defer null.Close()
	// The agent's own session keeps signals of the console away from it.
	p, err := os.StartProcess("/proc/self/exe", []string{AgentName}, &os.ProcAttr{
		Files: []*os.File{null, m.console, m.console, theirs},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return errors.Join(fmt.Errorf("start agent: %w", err), own.Close())
	}
	m.agent, m.control = p.Pid, own
	return control.Send(own, control.Message{Config: m.config})
}

// moveAgent makes the agent change its root to the root file system and waits
// until it has. After that the mount point is moved.
func (m *machine) moveAgent() error {
	if err := control.Send(m.control, control.Message{Root: true, Notes: m.notes}); err != nil {
		return m.agentError(err)
	}
	if err := m.control.SetReadDeadline(time.Now().Add(rootedWait)); err != nil {
		return fmt.Errorf("wait for agent: %w", err)
	}
	msg, err := control.Receive(m.control)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("wait for agent: not in the root file system after %v", rootedWait)
	}
	if err != nil {
		return m.agentError(err)
	}
	if !msg.Rooted {
		return errors.New("wait for agent: unexpected message")
	}
	return m.control.SetReadDeadline(time.Time{})
}

// agentError returns how the agent ended if err means that it has ended, and
// err itself otherwise.
func (m *machine) agentError(err error) error {
	if !errors.Is(err, io.EOF) && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		return err
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(m.agent, &status, 0, nil); err != nil {
		return fmt.Errorf("agent ended: %w", err)
	}
	return agentExit(status)
}

func agentExit(status unix.WaitStatus) error {
	if status.Signaled() {
		return fmt.Errorf("agent ended by %v", status.Signal())
	}
	return fmt.Errorf("agent ended with exit status %d", status.ExitStatus())
}
