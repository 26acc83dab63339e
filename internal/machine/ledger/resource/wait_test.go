package resource

import (
	"context"
	"errors"
	"os/exec"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/machine/ledger"
)

// startIdle starts a process that does nothing and returns it with its entry.
func startIdle(t *testing.T) (*exec.Cmd, ledger.Entry) {
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
	cmd, e := startIdle(t)
	done := make(chan error, 1)
	go func() { done <- WaitEnd(t.Context(), e) }()
	select {
	case err := <-done:
		t.Fatalf("WaitEnd returned while the process runs: %v", err)
	case <-time.After(50 * time.Millisecond): // long enough for the wait to begin; if it is not, the test proves less
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := WaitEnd(t.Context(), e); err != nil {
		t.Errorf("after the end: %v", err)
	}
}

func TestWaitEndOfAnother(t *testing.T) {
	_, e := startIdle(t)
	e.Start++ // the number belongs to a later process
	if err := WaitEnd(t.Context(), e); err != nil {
		t.Error(err)
	}
}

func TestWaitEndEndsWithContext(t *testing.T) {
	_, e := startIdle(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- WaitEnd(ctx, e) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
}
