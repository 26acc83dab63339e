package boot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/guest/control"
)

// The two time limits of a shutdown that the guest itself has requested.
// defaultGrace is the time that processes get between SIGTERM and SIGKILL.
// deliverWait is the time that the agent then gets to send the main command's
// status to the host.
const (
	defaultGrace = 10 * time.Second
	deliverWait  = time.Second
)

// An event ends the machine or starts its shutdown.
type event struct {
	err       error         // the error that ends the machine
	mainEnded bool          // the main command has ended
	powerOff  bool          // the agent has requested a shutdown
	grace     time.Duration // for powerOff: the time between SIGTERM and SIGKILL
}

// endSignals returns the signals by which programs ask an init to power off:
// those of busybox's halt, poweroff and reboot, of an administrator's kill, and
// of the kernel for Ctrl-Alt-Delete and for a power failure.
func endSignals() []os.Signal {
	return []os.Signal{unix.SIGUSR1, unix.SIGUSR2, unix.SIGTERM, unix.SIGINT, unix.SIGPWR}
}

// serveAsInit runs process 1 if the image's own init does not. It reaps
// processes until the main command has ended or a shutdown is requested. Then
// it kills the processes that are left.
func (m *machine) serveAsInit() error {
	m.protect()
	requests := make(chan os.Signal, 1)
	signal.Notify(requests, endSignals()...)
	reaped := make(chan struct{})
	// These two goroutines run until the machine ends.
	m.goProtected(func() error { defer close(reaped); return m.reap() })
	m.goProtected(m.receive)
	var err error
	select {
	case <-requests:
		m.terminate(defaultGrace)
		select {
		case <-m.events:
		case <-time.After(deliverWait):
		}
	case e := <-m.events:
		err = e.err
		if e.powerOff {
			m.terminate(e.grace)
		}
	}
	// As in a container, processes that outlive the main command get no
	// SIGTERM.
	if kill := unix.Kill(-1, unix.SIGKILL); kill != nil && !errors.Is(kill, unix.ESRCH) {
		m.note("kill processes: %v", kill)
	}
	const killWait = 5 * time.Second // a process inside a system call ends when the call returns
	select {
	case <-reaped:
	case <-time.After(killWait):
	}
	return err
}

// protect excludes process 1 from the choice of the OOM killer. The kernel does so
// too, but shows a score of 0. The image's own init gets no protection, because its
// children, the image's services, would inherit it.
func (m *machine) protect() {
	const score = "/proc/self/oom_score_adj"
	if err := os.WriteFile(score, []byte(strconv.Itoa(guest.OOMScoreNever)), 0); err != nil {
		m.printLine(guest.NotePrefix + err.Error())
	}
}

// goProtected runs f in a goroutine. An error or a panic of f ends the machine.
func (m *machine) goProtected(f func() error) {
	go func() {
		if err := protect(f); err != nil {
			m.events <- event{err: err}
		}
	}()
}

// reap takes the status of every process that ends, as process 1 must. It
// returns when there is no child left, which is after the agent has ended.
func (m *machine) reap() error {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ECHILD):
			return nil
		case err != nil:
			return fmt.Errorf("wait for processes: %w", err)
		case pid == m.agent:
			m.goProtected(func() error { return agentExit(status) })
		}
	}
}

// receive turns the agent's messages into events.
func (m *machine) receive() error {
	for {
		msg, err := control.Receive(m.control)
		if errors.Is(err, io.EOF) {
			return nil // reap reports how the agent ended
		}
		if err != nil {
			return err
		}
		switch {
		case msg.MainEnded:
			m.events <- event{mainEnded: true}
		case msg.PowerOff != nil:
			m.events <- event{powerOff: true, grace: time.Duration(*msg.PowerOff) * time.Millisecond}
		}
	}
}

// terminate sends SIGTERM to every process except the agent and waits until
// they have ended, for at most grace.
func (m *machine) terminate(grace time.Duration) {
	for _, pid := range m.programPIDs() {
		// A process may have ended in the meantime, so errors of kill are
		// ignored.
		_ = unix.Kill(pid, unix.SIGTERM)
		_ = unix.Kill(pid, unix.SIGCONT) // a stopped process does not handle SIGTERM
	}
	const pollInterval = 20 * time.Millisecond
	deadline := time.After(grace)
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for len(m.programPIDs()) > 0 {
		select {
		case e := <-m.events:
			if e.err != nil {
				return
			}
		case <-deadline:
			return
		case <-tick.C:
		}
	}
}

// programPIDs returns the processes that run programs of the image.
func (m *machine) programPIDs() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil // without /proc there is no process to wait for
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == 1 || pid == m.agent {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err == nil && runsProgram(pid, string(stat)) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// runsProgram reports whether a process runs a program. It is false for the
// kernel's threads, which are kthreadd, number 2, and its children, and for
// processes that have ended. stat is /proc/PID/stat of proc(5).
func runsProgram(pid int, stat string) bool {
	const kthreadd = 2
	end := strings.LastIndexByte(stat, ')') // the name before it may have any character
	fields := strings.Fields(stat[end+1:])
	if end < 0 || len(fields) < 2 {
		return false
	}
	return pid != kthreadd && fields[1] != strconv.Itoa(kthreadd) && !slices.Contains([]string{"Z", "X"}, fields[0])
}
