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

// A role is what a process is to a machine.
type role string

const (
	cli        role = "CLI"
	daemon     role = "daemon"
	supervisor role = "supervisor"
	vmm        role = "VMM"
)

func roles() []role { return []role{cli, daemon, supervisor, vmm} }

// A shot kills one process of the subject's, once: at a step of its life, or at a moment of a command.
type shot struct {
	world  world
	spared []string // IDs of machines that it is not for
	first  role     // whom it is for; where there is none of these, the next of roles is it
	at     int      // number of the step, from 1; 0: at a moment

	mu      sync.Mutex
	subject string // ID, once it is known
	client  int    // process of the command that runs
	op      string // what it does
	steps   []string
	fired   bool
	victim  role
	when    string
}

// step counts the subject's steps and fires at the one that it is for.
func (s *shot) step(st step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Contains(s.spared, st.machine) {
		return
	}
	s.subject = st.machine
	s.steps = append(s.steps, s.op+": "+st.what)
	if len(s.steps) == s.at {
		s.fire(fmt.Sprintf("step %d (%s: %s, by process %d)", s.at, s.op, st.what, st.pid))
	}
}

// moment fires after a while, unless the command has ended by then.
func (s *shot) moment(after time.Duration, ended <-chan struct{}) {
	timer := time.NewTimer(after)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.fire(fmt.Sprintf("%v into %s", after, s.op))
	}
}

// begin says which command runs.
func (s *shot) begin(op string, client int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.op, s.client = op, client
}

// fire is called with the lock held.
func (s *shot) fire(when string) {
	if s.fired {
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
			s.fired, s.victim, s.when = true, r, when
			return
		}
	}
}

// find returns the process that has the role, or 0.
func (s *shot) find(r role, all []process) int {
	for _, p := range all {
		switch {
		case r == cli && p.pid == s.client,
			r == daemon && p.is("daemon") && p.inWorld(s.world.dir),
			r == supervisor && s.subject != "" && p.is("supervise") && machineOf(p, all) == s.subject,
			r == vmm && s.subject != "" && strings.HasPrefix(p.name, "qemu-system") && machineOf(p, all) == s.subject:
			return p.pid
		}
	}
	return 0
}

// result is who was killed, and when; fired is false when nobody was.
func (s *shot) result() (victim role, when string, fired bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.victim, s.when, s.fired
}
