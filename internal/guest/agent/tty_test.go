package agent

import (
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/guest/client"
)

// screen collects the output of a process, and a test can wait for a text in
// it.
type screen struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *screen) waitFor(t *testing.T, text string) {
	t.Helper()
	ctx := testContext(t)
	for !strings.Contains(s.String(), text) {
		select {
		case <-ctx.Done():
			t.Fatalf("no %q on the screen: %q", text, s)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// startOnTerminal starts a command on a terminal, with an input that stays
// open.
func startOnTerminal(t *testing.T, c *client.Client, command guest.Command) (*client.Process, *screen, io.Writer) {
	t.Helper()
	r, w := io.Pipe()
	t.Cleanup(func() { closeQuietly(w) })
	out := &screen{}
	command = asCurrentUser(command)
	command.Stdin = true
	p, err := c.Start(testContext(t), command, client.Stdio{
		In: r, Out: out, Err: out, TTY: &client.TTY{Term: "vt220", Rows: 33, Cols: 101},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p, out, w
}

func mustWait(t *testing.T, p *client.Process) client.Exit {
	t.Helper()
	exit, err := p.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return exit
}

func TestTerminal(t *testing.T) {
	c := readyMachine(t).client(t)
	p, out, in := startOnTerminal(t, c, sh("tty; stty size; echo $TERM; read x; echo got $x; exec sh -c 'trap \"stty size; exit 3\" WINCH; echo set; while :; do sleep .05; done'"))
	out.waitFor(t, "/dev/pts/")
	out.waitFor(t, "33 101\r\nvt220\r\n")
	ignore(io.WriteString(in, "word\n"))
	out.waitFor(t, "got word\r\n")
	out.waitFor(t, "set\r\n")
	if err := p.Resize(44, 132); err != nil {
		t.Fatal(err)
	}
	out.waitFor(t, "44 132\r\n")
	if exit := mustWait(t, p); exit.Code != 3 {
		t.Errorf("exit %+v, want 3", exit)
	}
}

// The terminal turns keys into signals for the foreground group.
func TestTerminalKeys(t *testing.T) {
	c := readyMachine(t).client(t)
	p, out, in := startOnTerminal(t, c, sh("trap 'echo INT; exit 7' INT; echo ready; while :; do sleep .05; done"))
	out.waitFor(t, "ready")
	ignore(io.WriteString(in, "\x03"))
	if exit := mustWait(t, p); exit.Code != 7 || !strings.Contains(out.String(), "INT") {
		t.Errorf("after ^C exit %+v, screen %q", exit, out)
	}
	p, _, in = startOnTerminal(t, c, guest.Command{Args: []string{"cat"}})
	ignore(io.WriteString(in, "\x04"))
	if exit := mustWait(t, p); exit.Code != 0 {
		t.Errorf("after ^D exit %+v", exit)
	}
}

// A process may close its terminal and open it again, and has not ended then.
func TestTerminalClosed(t *testing.T) {
	c := readyMachine(t).client(t)
	p, out, _ := startOnTerminal(t, c, sh("exec <&- >&- 2>&-; sleep .3; echo again >/dev/tty; sleep .3; exit 9"))
	if exit := mustWait(t, p); exit.Code != 9 || out.String() != "again\r\n" {
		t.Errorf("exit %+v, screen %q", exit, out)
	}
}

// The output of a process on a terminal is complete when it ends, and a child
// that is left behind does not delay the end.
func TestTerminalEnd(t *testing.T) {
	c := readyMachine(t).client(t)
	for range 5 {
		p, out, _ := startOnTerminal(t, c, sh("sleep 30 & seq 1 20000; printf end"))
		begin := time.Now()
		mustWait(t, p)
		if !strings.HasSuffix(out.String(), "19999\r\n20000\r\nend") {
			text := out.String()
			t.Fatalf("the screen ends in %q", text[max(0, len(text)-60):])
		}
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("took %v", took)
		}
	}
}

func TestTerminalOfUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may change users")
	}
	c := readyMachine(t).client(t)
	p, out, _ := startOnTerminal(t, c, guest.Command{Args: []string{"sh", "-c", "stat -c %u $(tty); echo hello >/dev/tty"}, User: "daemon"})
	if exit := mustWait(t, p); exit.Code != 0 || out.String() != "1\r\nhello\r\n" {
		t.Errorf("exit %+v, screen %q", exit, out)
	}
}

func TestModes(t *testing.T) {
	master, peer, err := openPTY(&tty{rows: 1, cols: 2, modes: "\x03\x00\x00\x00\x08" + // VERASE is ^H
		"\x01\x00\x00\x00\xff" + // no VINTR
		"\x35\x00\x00\x00\x00" + // no ECHO
		"\x2a\x00\x00\x00\x01" + // IUTF8
		"\x80\x00\x00\x96\x00" + // a speed, which is ignored
		"\x00\x35\x00\x00\x00\x01"}, uint32(os.Geteuid())) // the end of the modes, and bytes that must be ignored
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	defer peer.Close()
	termios, err := unix.IoctlGetTermios(int(peer.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	if termios.Cc[unix.VERASE] != 8 || termios.Cc[unix.VINTR] != 0 || termios.Lflag&unix.ECHO != 0 || termios.Iflag&unix.IUTF8 == 0 {
		t.Errorf("modes %+v", termios)
	}
	if termios.Lflag&unix.ICANON == 0 {
		t.Error("a mode changed that the client did not send")
	}
}

func TestSignals(t *testing.T) {
	c := readyMachine(t).client(t)
	for _, row := range []struct {
		name string
		code int
	}{{"TERM", 143}, {"SIGKILL", 137}, {"9", 137}, {"SIGRTMIN+4", 128 + 38}, {"USR1", 138}} {
		p, err := c.Start(testContext(t), asCurrentUser(guest.Command{Args: []string{"sleep", "60"}}), client.Stdio{})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Signal(row.name); err != nil {
			t.Fatal(err)
		}
		if exit := mustWait(t, p); exit.Code != row.code {
			t.Errorf("%s: exit %+v, want %d", row.name, exit, row.code)
		}
	}
	// Without a terminal, only the process gets the signal.
	out := &screen{}
	p, err := c.Start(testContext(t), sh("trap 'echo parent' USR1; (trap 'echo child' USR1; echo ready; sleep .5; echo survived) & wait; wait"), client.Stdio{Out: out})
	if err != nil {
		t.Fatal(err)
	}
	out.waitFor(t, "ready")
	if err := p.Signal("USR1"); err != nil {
		t.Fatal(err)
	}
	mustWait(t, p)
	if got := out.String(); got != "ready\nparent\nsurvived\n" {
		t.Errorf("got %q", got)
	}
	if err := p.Signal("USR1"); err != nil {
		t.Errorf("a signal to a process that has ended: %v", err)
	}
	if err := p.Signal("NONE"); err == nil {
		t.Error("a signal without a number was sent")
	}
}

// If the client disconnects, the process gets SIGHUP, and SIGKILL if it does
// not end.
func TestHangUp(t *testing.T) {
	m := readyMachine(t)
	for _, row := range []struct{ name, script string }{
		{"dies", "sleep 60"},
		{"stays", "trap '' HUP; echo ready; while :; do sleep .1; done"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := m.client(t)
			out := &screen{}
			p, err := c.Start(testContext(t), sh("echo pid $$ ready;"+row.script), client.Stdio{Out: out})
			if err != nil {
				t.Fatal(err)
			}
			out.waitFor(t, "ready\n")
			pid := strings.Fields(out.String())[1]
			closeQuietly(c)
			if _, err := p.Wait(); err == nil {
				t.Error("no error from a lost process")
			}
			waitFor(t, func() bool { _, err := os.Stat("/proc/" + pid); return err != nil })
		})
	}
}
