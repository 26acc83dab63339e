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

// startAgent starts the agent before there is a root file system, so that the
// host's connection is made while that is mounted.
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
	// In a session of its own it is out of the console's reach.
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

// tellAgent says that the root file system is there and waits until the agent
// is in it: its path goes away.
func (m *machine) tellAgent() error {
	if err := control.Send(m.control, control.Message{Root: true, Notes: m.notes}); err != nil {
		return m.agentEnded(err)
	}
	if err := m.control.SetReadDeadline(time.Now().Add(rootedWait)); err != nil {
		return fmt.Errorf("wait for agent: %w", err)
	}
	msg, err := control.Receive(m.control)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("wait for agent: not in the root file system after %v", rootedWait)
	}
	if err != nil {
		return m.agentEnded(err)
	}
	if !msg.Rooted {
		return errors.New("wait for agent: an answer to another question")
	}
	return m.control.SetReadDeadline(time.Time{})
}

// agentEnded says how the agent ended where err is that it did.
func (m *machine) agentEnded(err error) error {
	if !errors.Is(err, io.EOF) && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		return err
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(m.agent, &status, 0, nil); err != nil {
		return fmt.Errorf("agent ended: %w", err)
	}
	return errAgent(status)
}

func errAgent(status unix.WaitStatus) error {
	if status.Signaled() {
		return fmt.Errorf("agent ended by %v", status.Signal())
	}
	return fmt.Errorf("agent ended with exit status %d", status.ExitStatus())
}
