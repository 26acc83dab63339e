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

	"github.com/banger-vm/banger/internal/guest/control"
)

// defaultGrace is what processes get between SIGTERM and SIGKILL when the
// guest itself asks to power off, and deliverWait what the agent gets then to
// hand on how the main command ended.
const (
	defaultGrace = 10 * time.Second
	deliverWait  = time.Second
)

// An event is what ends the machine, or begins its end.
type event struct {
	err       error         // why it must end
	mainEnded bool          // nothing is left to wait for
	powerOff  bool          // asked for by the agent
	grace     time.Duration // with powerOff
}

// endSignals are how programs ask an init to power off: busybox's halt,
// poweroff and reboot, an administrator's kill, the kernel's for
// Ctrl-Alt-Delete and power failure.
func endSignals() []os.Signal {
	return []os.Signal{unix.SIGUSR1, unix.SIGUSR2, unix.SIGTERM, unix.SIGINT, unix.SIGPWR}
}

// supervise is process 1's life with no init of the image's: it reaps, until
// the main command has ended or somebody asks to power off, and then ends
// what still runs.
func (m *machine) supervise() error {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, endSignals()...)
	reaped := make(chan struct{})
	// These two end with the machine.
	m.watch(func() error { defer close(reaped); return m.reap() })
	m.watch(m.listen)
	var err error
	select {
	case <-asked:
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
	// As with a container, what the main command left behind gets no notice.
	if kill := unix.Kill(-1, unix.SIGKILL); kill != nil && !errors.Is(kill, unix.ESRCH) {
		m.note("kill processes: %v", kill)
	}
	const killWait = 5 * time.Second // a process that is in the kernel ends when it comes out
	select {
	case <-reaped:
	case <-time.After(killWait):
	}
	return err
}

// watch runs f beside process 1's main goroutine; its error, or its panic,
// ends the machine.
func (m *machine) watch(f func() error) {
	go func() {
		if err := protect(f); err != nil {
			m.events <- event{err: err}
		}
	}()
}

// reap takes the status of every process that ends, as process 1 must. It
// returns when there is none left, which is after the agent's end.
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
			m.watch(func() error { return errAgent(status) })
		}
	}
}

// listen hands on what the agent says.
func (m *machine) listen() error {
	for {
		msg, err := control.Receive(m.control)
		if errors.Is(err, io.EOF) {
			return nil // reap says how the agent ended
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

// terminate asks every process but the agent to end and waits for that, at
// most grace.
func (m *machine) terminate(grace time.Duration) {
	for _, pid := range m.others() {
		// One that has ended meanwhile is what was wanted.
		unix.Kill(pid, unix.SIGTERM) //nolint:errcheck // see above
		unix.Kill(pid, unix.SIGCONT) //nolint:errcheck // a stopped process takes no signal
	}
	const look = 20 * time.Millisecond
	deadline := time.After(grace)
	tick := time.NewTicker(look)
	defer tick.Stop()
	for len(m.others()) > 0 {
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

// others are the processes that programs of the image made.
func (m *machine) others() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil // without /proc there is nothing to wait for
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

// runsProgram tells a process with a program from the kernel's threads, which
// are kthreadd, number 2, and its children, and from what has ended already.
// stat is /proc/PID/stat of proc(5).
func runsProgram(pid int, stat string) bool {
	const kthreadd = 2
	end := strings.LastIndexByte(stat, ')') // the name before it may have any character
	fields := strings.Fields(stat[end+1:])
	if end < 0 || len(fields) < 2 {
		return false
	}
	return pid != kthreadd && fields[1] != strconv.Itoa(kthreadd) && !slices.Contains([]string{"Z", "X"}, fields[0])
}
