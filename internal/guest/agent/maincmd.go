package agent

import (
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

// deliveredWait bounds how long the end of the machine waits for the host to
// take the main command's exit status.
const deliveredWait = 2 * time.Second

// stage is how far the main command has come.
type stage int

const (
	noMain   stage = iota
	starting       // it has been asked for, and may wait for the root file system
	running
	mainEnded
)

// mainCommand is the command whose end is the machine's.
type mainCommand struct {
	mu      sync.Mutex
	stage   stage
	process *process
	stop    syscall.Signal
	stopIn  *time.Duration // grace of a request to stop that came before the process
}

// claim makes c the main command. There is one in a machine's life.
func (m *mainCommand) claim(c *guest.Command) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stage != noMain {
		return errors.New("the machine has a main command already")
	}
	stop, err := guest.ParseSignal(orDefault(c.StopSignal, "SIGTERM"))
	if err != nil {
		return fmt.Errorf("stop signal: %w", err)
	}
	m.stage, m.stop = starting, syscall.Signal(stop)
	return nil
}

// started says that the claimed command runs as p.
func (m *mainCommand) started(p *process) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stage, m.process = running, p
	if m.stopIn != nil {
		m.stopProcess(*m.stopIn)
	}
}

func (m *mainCommand) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stage = mainEnded
}

// stopProcess is called with the lock held. A later call with less grace is
// obeyed too.
func (m *mainCommand) stopProcess(grace time.Duration) {
	p := m.process
	// A process that has ended needs no signal, and no other error is possible for root.
	p.kill(m.stop, p.os.Pid)                                         //nolint:errcheck // see above
	time.AfterFunc(grace, func() { p.kill(unix.SIGKILL, p.os.Pid) }) //nolint:errcheck // see above
}

// powerOff ends the machine: at once where there is no main command, else by
// way of its end. An init of the image's is asked.
func (a *agent) powerOff(ctx context.Context, grace time.Duration) error {
	if a.config.Init == guest.InitImage && a.root.settled() {
		if a.opts.AskInit == nil {
			return errors.New("power off: this agent cannot ask the image's init")
		}
		a.tasks.Go(func() {
			a.opts.AskInit(context.WithoutCancel(ctx), grace) //nolint:errcheck // it has forced the end, or nothing can
		})
		return nil
	}
	if a.main.askToStop(grace) {
		return nil
	}
	milliseconds := grace.Milliseconds()
	return control.Send(a.opts.Control, control.Message{PowerOff: &milliseconds})
}

// askToStop reports whether there is a main command to wait for.
func (m *mainCommand) askToStop(grace time.Duration) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch m.stage {
	case running:
		m.stopProcess(grace)
	case starting:
		m.stopIn = &grace
	case noMain, mainEnded:
		return false
	}
	return true
}

// mainDone tells process 1 that the main command has ended, once the host has
// closed its channel or is not going to.
func (a *agent) mainDone(ctx context.Context, gone <-chan struct{}) {
	a.main.end()
	timer := time.NewTimer(deliveredWait)
	defer timer.Stop()
	select {
	case <-gone:
	case <-timer.C:
	case <-ctx.Done():
	}
	// Nobody is there to be told with an init of the image's, and nobody to tell of it.
	control.Send(a.opts.Control, control.Message{MainEnded: true}) //nolint:errcheck // see above
}
