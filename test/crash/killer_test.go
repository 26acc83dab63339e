//go:build e2e

package crash

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A role is the part of a process in the life of a machine.
type role string

const (
	cli        role = "CLI"
	daemon     role = "daemon"
	supervisor role = "supervisor"
	vmm        role = "VMM"
)

func roles() []role { return []role{cli, daemon, supervisor, vmm} }

// A killer kills one process of the subject, once: at a step, or some time into a command.
type killer struct {
	sandbox sandbox
	spared  []string // IDs of machines whose steps do not count
	first   role     // role to kill; if no process has it, the next role
	at      int      // number of the step, from 1; 0: at no step

	mu      sync.Mutex
	subject string // ID, after its first step
	client  int    // process of the current command
	op      string // name of the current command
	steps   []string
	killed  bool
	victim  role
	when    string
}

// step counts a step of the subject, and kills at the step number at.
func (s *killer) step(st step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Contains(s.spared, st.machine) {
		return
	}
	s.subject = st.machine
	s.steps = append(s.steps, s.op+": "+st.what)
	if len(s.steps) == s.at {
		s.kill(fmt.Sprintf("step %d (%s: %s, by process %d)", s.at, s.op, st.what, st.pid))
	}
}

// killAfter kills after the given time, unless the command ends first.
func (s *killer) killAfter(after time.Duration, ended <-chan struct{}) {
	timer := time.NewTimer(after)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.kill(fmt.Sprintf("%v into %s", after, s.op))
	}
}

// beginCommand sets the current command.
func (s *killer) beginCommand(op string, client int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.op, s.client = op, client
}

// kill kills the process with the first role that a process has. The caller holds the lock.
func (s *killer) kill(when string) {
	if s.killed {
		return
	}
	all := processes()
	order := roles()
	at := slices.Index(order, s.first)
	for _, r := range append(order[at:], order[:at]...) {
		pid := s.find(r, all)
		if pid == 0 {
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err == nil {
			s.killed, s.victim, s.when = true, r, when
			return
		}
	}
}

// find returns the number of the process that has the role, or 0.
func (s *killer) find(r role, all []process) int {
	for _, p := range all {
		switch {
		case r == cli && p.pid == s.client,
			r == daemon && p.is("daemon") && p.inSandbox(s.sandbox.dir),
			r == supervisor && s.subject != "" && p.is("supervise") && machineOf(p, all) == s.subject,
			r == vmm && s.subject != "" && strings.HasPrefix(p.name, "qemu-system") && machineOf(p, all) == s.subject:
			return p.pid
		}
	}
	return 0
}

// result returns the role of the process that was killed, and when. killed is false if none was.
func (s *killer) result() (victim role, when string, killed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.victim, s.when, s.killed
}
