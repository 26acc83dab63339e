package resource

import (
	"context"
	"errors"
	"os/exec"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/machine/ledger"
)

// watched starts a process that does nothing, and returns it with its entry.
func watched(t *testing.T) (*exec.Cmd, ledger.Entry) {
	t.Helper()
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	boot, err := BootID()
	if err != nil {
		t.Fatal(err)
	}
	s, err := readStat(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return cmd, ledger.Entry{Kind: ledger.Process, Name: "sleeper", Boot: boot, PID: cmd.Process.Pid, Start: s.start}
}

func TestWaitEnd(t *testing.T) {
	cmd, e := watched(t)
	done := make(chan error, 1)
	go func() { done <- WaitEnd(t.Context(), e) }()
	select {
	case err := <-done:
		t.Fatalf("it was not waited for: %v", err)
	case <-time.After(50 * time.Millisecond): // long enough to begin; no test if it is not
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := WaitEnd(t.Context(), e); err != nil {
		t.Errorf("of one that has ended: %v", err)
	}
}

func TestWaitEndOfAnother(t *testing.T) {
	_, e := watched(t)
	e.Start++ // the number has gone to a later process
	if err := WaitEnd(t.Context(), e); err != nil {
		t.Error(err)
	}
}

func TestWaitEndIsGivenUp(t *testing.T) {
	_, e := watched(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- WaitEnd(ctx, e) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that of the context", err)
	}
}
