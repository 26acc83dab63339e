package supervisor

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/machine/spec"
)

// TestTransitions walks the table through lives of a machine.
func TestTransitions(t *testing.T) {
	type step struct {
		event  event
		action action
		state  state
	}
	up := step{bootSucceeded, runMain, running}
	down := step{machineEnded, settle, settling}
	gone := step{finished, none, ended}
	for _, row := range []struct {
		name  string
		steps []step
	}{
		{"a command that ends", []step{up, down, {willFinish, finish, finishing}, gone}},
		{"a restart", []step{up, down, {willRestart, waitToRestart, backingOff}, {restartDue, boot, booting}, up, down, {willFinish, finish, finishing}, gone}},
		{"a restart whose boot fails", []step{up, down, {willRestart, waitToRestart, backingOff}, {restartDue, boot, booting},
			{bootFailed, settle, settling}, {willRestart, waitToRestart, backingOff}}},
		{"a first boot that fails", []step{{firstBootFailed, abandon, abandoning}, gone}},
		{"a stop while it boots", []step{{stopRequested, cancelBoot, cancelling}, {firstBootFailed, abandon, abandoning}, gone}},
		{"a stop too late to cancel the boot", []step{{stopRequested, cancelBoot, cancelling}, {bootFailed, settle, settling}, {willFinish, finish, finishing}, gone}},
		{"a kill while it boots, after a stop", []step{{stopRequested, cancelBoot, cancelling}, {killRequested, none, cancelling}}},
		{"a stop", []step{up, {stopRequested, powerOff, stopping}, down}},
		{"a second stop, and a kill", []step{up, {stopRequested, powerOff, stopping}, {stopRequested, powerOff, stopping}, {killRequested, killMonitor, stopping}, down}},
		{"a stop after the end", []step{up, down, {stopRequested, none, settling}, {willFinish, finish, finishing}, {stopRequested, none, finishing}, gone}},
		{"a stop before a restart", []step{up, down, {willRestart, waitToRestart, backingOff}, {stopRequested, finish, finishing}, {restartDue, none, finishing}, gone}},
		{"a resource that cannot be given back", []step{up, down, gone}},
		{"requests after the end", []step{{firstBootFailed, abandon, abandoning}, gone, {stopRequested, none, ended}, {killRequested, none, ended}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := newLoop()
			for _, s := range row.steps {
				if got := l.next(s.event); got != s.action || l.state != s.state {
					t.Fatalf("%s: action %q and state %q, want %q and %q", s.event, got, l.state, s.action, s.state)
				}
			}
		})
	}
}

// TestTransitionsAreComplete checks the properties that every state must have.
func TestTransitionsAreComplete(t *testing.T) {
	table := transitions()
	for from, row := range table {
		for _, e := range []event{stopRequested, killRequested} {
			if _, ok := row[e]; !ok {
				t.Errorf("a machine in state %s cannot take %s", from, e)
			}
		}
		for e, to := range row {
			if _, ok := table[to.next]; !ok {
				t.Errorf("%s in state %s leads to %s, which is not a state", e, from, to.next)
			}
			if from == ended && to != (transition{ended, none}) {
				t.Errorf("%s leads out of the last state, to %s", e, to.next)
			}
		}
		if !reaches(table, from, ended, nil) {
			t.Errorf("a machine in state %s cannot end", from)
		}
	}
	for s := range table {
		if !reaches(table, booting, s, nil) {
			t.Errorf("a machine cannot get to state %s", s)
		}
	}
}

// reaches reports whether a path leads from one state to another.
func reaches(table map[state]map[event]transition, from, to state, seen []state) bool {
	if from == to {
		return true
	}
	if slices.Contains(seen, from) {
		return false
	}
	for _, t := range table[from] {
		if reaches(table, t.next, to, append(seen, from)) {
			return true
		}
	}
	return false
}

// TestUnknownEvent checks that an event without a row is not ignored.
func TestUnknownEvent(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a restart of a machine that boots was accepted")
		}
	}()
	newLoop().next(restartDue)
}

// TestLoopAfterItsEnd checks that requests to a loop that has ended return.
func TestLoopAfterItsEnd(t *testing.T) {
	l := newLoop()
	l.exit.Code = 7
	close(l.done)
	v := &supervisor{loop: l}
	if code := v.loop.lastExit().Code; code != 7 {
		t.Errorf("exit code %d, want 7", code)
	}
	v.requestStop(stoppedByUser, 0)
	v.requestKill()
	l.post(func(context.Context) { t.Error("a loop that has ended called a function") })
}

func TestWantsRestart(t *testing.T) {
	for _, row := range []struct {
		restart  spec.Restart
		code, n  int
		restarts bool
	}{
		{spec.Restart{}, 1, 0, false},
		{spec.Restart{Policy: spec.RestartNo}, 1, 0, false},
		{spec.Restart{Policy: spec.RestartAlways}, 0, 9, true},
		{spec.Restart{Policy: spec.RestartUnlessStopped}, 0, 9, true},
		{spec.Restart{Policy: spec.RestartOnFailure}, 0, 0, false},
		{spec.Restart{Policy: spec.RestartOnFailure}, 1, 9, true},
		{spec.Restart{Policy: spec.RestartOnFailure, Retries: 2}, 1, 1, true},
		{spec.Restart{Policy: spec.RestartOnFailure, Retries: 2}, 1, 2, false},
	} {
		if got := wantsRestart(row.restart, row.code, row.n); got != row.restarts {
			t.Errorf("wantsRestart(%+v, %d, %d) = %v", row.restart, row.code, row.n, got)
		}
	}
}

func TestBackOff(t *testing.T) {
	for _, row := range []struct {
		n     int
		lived time.Duration
		want  time.Duration
	}{
		{0, 0, 100 * time.Millisecond},
		{3, 0, 800 * time.Millisecond},
		{10, 0, time.Minute},
		{1000, 0, time.Minute},
		{1000, 10 * time.Second, 100 * time.Millisecond},
	} {
		if got := backOff(row.n, row.lived); got != row.want {
			t.Errorf("backOff(%d, %v) = %v, want %v", row.n, row.lived, got, row.want)
		}
	}
}
