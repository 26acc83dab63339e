package agent

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/guest/client"
	"github.com/banger-vm/banger/internal/guest/control"
)

func mainCommandOf(script string) guest.Command {
	c := sh(script)
	c.Main = true
	return c
}

func start(t *testing.T, c *client.Client, command guest.Command) (*client.Process, *screen) {
	t.Helper()
	out := &screen{}
	p, err := c.Start(testContext(t), command, client.Stdio{Out: out, Err: out})
	if err != nil {
		t.Fatal(err)
	}
	return p, out
}

func TestMainEnds(t *testing.T) {
	m := readyMachine(t)
	c := m.client(t)
	p, _ := start(t, c, mainCommandOf("exit 5"))
	if exit := mustWait(t, p); exit.Code != 5 {
		t.Errorf("exit %+v", exit)
	}
	if msg := m.receive(t); !msg.MainEnded {
		t.Errorf("process 1 received %+v", msg)
	}
	p, out := start(t, c, mainCommandOf("true"))
	if exit := mustWait(t, p); exit.Code != 126 || !strings.Contains(out.String(), "main command already") {
		t.Errorf("a second main command: exit %+v, %q", exit, out)
	}
}

// A main command that cannot be started counts as ended.
func TestMainCannotStart(t *testing.T) {
	m := readyMachine(t)
	p, _ := start(t, m.client(t), asCurrentUser(guest.Command{Args: []string{"/no/such"}, Main: true}))
	if exit := mustWait(t, p); exit.Code != 127 {
		t.Errorf("exit %+v", exit)
	}
	if msg := m.receive(t); !msg.MainEnded {
		t.Errorf("process 1 received %+v", msg)
	}
}

// The main command keeps running after the host's connection ends.
func TestMainOutlivesConnection(t *testing.T) {
	m := readyMachine(t)
	c := m.client(t)
	file := t.TempDir() + "/file"
	_, out := start(t, c, mainCommandOf("echo ready; while ! test -e "+file+"; do sleep .05; echo more; done"))
	out.waitFor(t, "ready")
	closeQuietly(c)
	if _, err := m.client(t).Status(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if msg := m.receive(t); !msg.MainEnded {
		t.Errorf("process 1 received %+v", msg)
	}
}

func TestPowerOff(t *testing.T) {
	for _, row := range []struct {
		name, signal, script string
		grace                time.Duration
		code                 int
	}{
		{"obeys", "", "trap 'exit 3' TERM; echo ready; while :; do sleep .05; done", time.Minute, 3},
		{"its own signal", "SIGQUIT", "trap 'exit 4' QUIT; trap '' TERM; echo ready; while :; do sleep .05; done", time.Minute, 4},
		{"does not obey", "", "trap '' TERM; echo ready; while :; do sleep .05; done", 300 * time.Millisecond, 137},
		{"no time", "", "trap 'sleep 1; exit 3' TERM; echo ready; while :; do sleep .05; done", 0, 137},
	} {
		t.Run(row.name, func(t *testing.T) {
			m := readyMachine(t)
			c := m.client(t)
			command := mainCommandOf(row.script)
			command.StopSignal = row.signal
			p, out := start(t, c, command)
			out.waitFor(t, "ready")
			if err := c.PowerOff(testContext(t), row.grace); err != nil {
				t.Fatal(err)
			}
			if exit := mustWait(t, p); exit.Code != row.code {
				t.Errorf("exit %+v, want %d", exit, row.code)
			}
			if msg := m.receive(t); !msg.MainEnded {
				t.Errorf("process 1 received %+v", msg)
			}
		})
	}
}

// A second request with a shorter grace takes effect at once.
func TestPowerOffTwice(t *testing.T) {
	m := readyMachine(t)
	c := m.client(t)
	p, out := start(t, c, mainCommandOf("trap '' TERM; echo ready; while :; do sleep .05; done"))
	out.waitFor(t, "ready")
	for _, grace := range []time.Duration{time.Hour, 0} {
		if err := c.PowerOff(testContext(t), grace); err != nil {
			t.Fatal(err)
		}
	}
	if exit := mustWait(t, p); exit.Code != 137 {
		t.Errorf("exit %+v", exit)
	}
}

func TestPowerOffWithoutMain(t *testing.T) {
	m := newMachine(t, nil)
	if err := m.client(t).PowerOff(testContext(t), 1500*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if msg := m.receive(t); msg.PowerOff == nil || *msg.PowerOff != 1500 {
		t.Errorf("process 1 received %+v", msg)
	}
}

// If the main command still waits for the root file system, it gets the stop
// request when it starts.
func TestPowerOffBeforeMainRuns(t *testing.T) {
	m := newMachine(t, nil)
	c := m.client(t)
	exits := make(chan client.Exit)
	go func() {
		p, _ := start(t, c, mainCommandOf("sleep 60"))
		exits <- mustWait(t, p)
	}()
	// The first command is claimed when the second is refused for it. The
	// second has an invalid stop signal, so it cannot be claimed itself.
	waitFor(t, func() bool {
		var stderr bytes.Buffer
		p, err := c.Start(testContext(t), guest.Command{Args: []string{"true"}, Main: true, StopSignal: "NONE"}, client.Stdio{Err: &stderr})
		if err != nil {
			return false
		}
		_, err = p.Wait()
		return err == nil && strings.Contains(stderr.String(), "has a main command already")
	})
	if err := c.PowerOff(testContext(t), time.Minute); err != nil {
		t.Fatal(err)
	}
	select {
	case exit := <-exits:
		t.Fatalf("the command ended without having started: %+v", exit)
	default:
	}
	msg := control.Message{Root: true}
	if err := control.Send(m.boot, msg); err != nil {
		t.Fatal(err)
	}
	if exit := <-exits; exit.Code != 143 {
		t.Errorf("exit %+v, want TERM", exit)
	}
}

func TestPowerOffOfImagesInit(t *testing.T) {
	m := newMachine(t, func(o *Options) { o.Config.Init = guest.InitImage })
	m.rootReady(t)
	m.boot.Close() // process 1 has been replaced by another program
	c := m.client(t)
	if out, _, _ := run(t, c, sh("echo hi"), nil); out != "hi\n" {
		t.Errorf("after process 1 has changed: %q", out)
	}
	if err := c.PowerOff(testContext(t), 7*time.Second); err != nil {
		t.Fatal(err)
	}
	if grace := <-m.initRequests; grace != 7*time.Second {
		t.Errorf("asked with a grace of %v", grace)
	}
}

// If the root file system fails, commands are refused without an exit code, and
// the status has the reason.
func TestFatal(t *testing.T) {
	for _, row := range []struct {
		name, want string
		do         func(t *testing.T, m *machine)
	}{
		{"message", "no disk found", func(t *testing.T, m *machine) {
			if err := control.Send(m.boot, control.Message{Fatal: "no disk found"}); err != nil {
				t.Fatal(err)
			}
		}},
		{"process 1 gone", "process 1 ended", func(_ *testing.T, m *machine) { m.boot.Close() }},
		{"no folder to go to", "change root", func(t *testing.T, m *machine) {
			if err := control.Send(m.boot, control.Message{Root: true}); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			m := newMachine(t, func(o *Options) { o.Sysroot = "/no/such/folder" })
			c := m.client(t)
			early := make(chan error, 1) // may arrive before the message of process 1
			go func() { early <- refused(t, c) }()
			row.do(t, m)
			if err := errors.Join(<-early, refused(t, c)); err != nil {
				t.Error(err)
			}
			if s, err := c.Status(testContext(t)); err != nil || !strings.Contains(strings.Join(s.Notes, ""), row.want) {
				t.Errorf("status %+v, %v", s, err)
			}
		})
	}
}

// refused starts a command and returns an error unless it is refused.
func refused(t *testing.T, c *client.Client) error {
	t.Helper()
	p, err := c.Start(testContext(t), sh("true"), client.Stdio{})
	if err != nil {
		if !strings.Contains(err.Error(), "refused the request") {
			return err
		}
		return nil
	}
	exit, err := p.Wait()
	return errors.Join(fmt.Errorf("a command without a root ended with %+v", exit), err)
}
