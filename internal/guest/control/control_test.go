package control

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/guest"
)

func pair(t *testing.T) (boot, agent *os.File) {
	t.Helper()
	boot, agent, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { boot.Close(); agent.Close() })
	return boot, agent
}

// Two messages that are sent before the first read stay separate.
func TestMessagesStaySeparate(t *testing.T) {
	boot, agent := pair(t)
	grace := int64(1500)
	for _, m := range []Message{
		{Config: &guest.Config{Version: 1, Hostname: strings.Repeat("h", 60<<10)}},
		{Root: true, Notes: []string{"a", "b"}},
	} {
		if err := Send(boot, m); err != nil {
			t.Fatal(err)
		}
	}
	if err := Send(agent, Message{PowerOff: &grace}); err != nil {
		t.Fatal(err)
	}
	first, err := Receive(agent)
	if err != nil || first.Config == nil || len(first.Config.Hostname) != 60<<10 || first.Root {
		t.Fatalf("first message: %v, %v", first, err)
	}
	second, err := Receive(agent)
	if err != nil || !second.Root || len(second.Notes) != 2 || second.Config != nil {
		t.Fatalf("second message: %v, %v", second, err)
	}
	back, err := Receive(boot)
	if err != nil || back.PowerOff == nil || *back.PowerOff != grace {
		t.Fatalf("message back: %v, %v", back, err)
	}
	agent.Close()
	if _, err := Receive(boot); !errors.Is(err, io.EOF) {
		t.Fatalf("after close: %v, want EOF", err)
	}
}

func TestMessagesAreBounded(t *testing.T) {
	boot, agent := pair(t)
	if err := Send(boot, Message{Fatal: strings.Repeat("x", MaxMessage)}); err == nil {
		t.Error("a message that is too long was sent")
	}
	if _, err := boot.Write(append([]byte(`{"root":true}`), make([]byte, MaxMessage)...)); err != nil {
		t.Fatal(err)
	}
	if m, err := Receive(agent); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a message that is too long was received: %v, %v", m, err)
	}
	if _, err := boot.WriteString("no JSON\n"); err != nil {
		t.Fatal(err)
	}
	if m, err := Receive(agent); err == nil {
		t.Errorf("an invalid message was received: %v", m)
	}
}

// The test runs itself as a child process, which calls Open.
func TestOpen(t *testing.T) {
	if os.Getenv("CONTROL_TEST_AGENT") != "" {
		f, c, err := Open()
		if err != nil {
			t.Fatal(err)
		}
		if err := Send(f, Message{Rooted: c.Hostname == "box"}); err != nil {
			t.Fatal(err)
		}
		return
	}
	boot, agent := pair(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestOpen$")
	cmd.Env = append(os.Environ(), "CONTROL_TEST_AGENT=1")
	cmd.ExtraFiles = []*os.File{agent}
	if err := Send(boot, Message{Config: &guest.Config{Hostname: "box"}}); err != nil {
		t.Fatal(err)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if m, err := Receive(boot); err != nil || !m.Rooted {
		t.Errorf("answer: %+v, %v", m, err)
	}
}
