package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/guest/control"
)

// deliveryTimeout is how long the end of the machine is delayed until the host
// has received the main command's exit status.
const deliveryTimeout = 2 * time.Second

// stage is the stage of the main command's life.
type stage int

const (
	noMain   stage = iota
	starting       // requested; it may still wait for the root file system
	running
	mainEnded
)

// mainCommand is the main command. The machine ends when it has ended.
type mainCommand struct {
	mu          sync.Mutex
	stage       stage
	process     *process
	stop        syscall.Signal
	pendingStop *time.Duration // grace of a stop request that arrived before the process started
}

// claim makes c the main command. It returns an error if the machine has had
// one.
func (m *mainCommand) claim(c *guest.Command) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stage != noMain {
		return errors.New("the machine has a main command already")
	}
	stop, err := guest.ParseSignal(cmp.Or(c.StopSignal, "SIGTERM"))
	if err != nil {
		return fmt.Errorf("stop signal: %w", err)
	}
	m.stage, m.stop = starting, syscall.Signal(stop)
	return nil
}

// setProcess records that the claimed command runs as p.
func (m *mainCommand) setProcess(p *process) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stage, m.process = running, p
	if m.pendingStop != nil {
		m.stopProcess(*m.pendingStop)
	}
}

func (m *mainCommand) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stage = mainEnded
}

// stopProcess sends the stop signal at once and SIGKILL after grace. A later
// call with a shorter grace takes effect too. The caller holds the lock.
func (m *mainCommand) stopProcess(grace time.Duration) {
	p := m.process
	// For root, kill fails only if the process has ended.
	_ = p.kill(m.stop, p.os.Pid)
	time.AfterFunc(grace, func() { _ = p.kill(unix.SIGKILL, p.os.Pid) })
}

// powerOff ends the machine. If a main command runs, powerOff stops it, and its
// end is the machine's. If the image's own init runs, powerOff asks it.
func (a *agent) powerOff(ctx context.Context, grace time.Duration) error {
	if a.config.Init == guest.InitImage && a.root.finished() {
		if a.opts.AskInit == nil {
			return errors.New("power off: this agent cannot ask the image's init")
		}
		a.tasks.Go(func() {
			// An error cannot be reported: either the machine has been forced
			// off, or nothing can end it.
			_ = a.opts.AskInit(context.WithoutCancel(ctx), grace)
		})
		return nil
	}
	if a.main.requestStop(grace) {
		return nil
	}
	milliseconds := grace.Milliseconds()
	return control.Send(a.opts.Control, control.Message{PowerOff: &milliseconds})
}

// requestStop stops the main command. It returns false if there is none to wait
// for.
func (m *mainCommand) requestStop(grace time.Duration) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch m.stage {
	case running:
		m.stopProcess(grace)
	case starting:
		m.pendingStop = &grace
	case noMain, mainEnded:
		return false
	}
	return true
}

// reportMainEnd sends process 1 a message that the main command has ended,
// after the host has closed its channel or deliveryTimeout has passed.
func (a *agent) reportMainEnd(ctx context.Context, closed <-chan struct{}) {
	a.main.end()
	timer := time.NewTimer(deliveryTimeout)
	defer timer.Stop()
	select {
	case <-closed:
	case <-timer.C:
	case <-ctx.Done():
	}
	// If the image's own init is process 1, no process reads the message.
	_ = control.Send(a.opts.Control, control.Message{MainEnded: true})
}
