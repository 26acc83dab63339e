package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/crypto/ssh"

	"github.com/banger-vm/banger/internal/guest"
)

// What a client may set before its process starts.
const (
	maxEnv      = 256      // variables
	maxEnvBytes = 64 << 10 // in names and values
	maxPending  = 16       // signals
)

// A shell is a session channel (RFC 4254, section 6): one process.
type shell struct {
	agent   *agent
	user    string
	channel ssh.Channel
	gone    chan struct{} // closed when the client has closed the channel
	env     []string
	envSize int
	asked   bool // a process has been asked for

	mu      sync.Mutex
	tty     *tty
	process *process
	pending []syscall.Signal // came before the process
}

func (a *agent) serveShell(ctx context.Context, ch ssh.NewChannel, user string) {
	channel, requests, err := ch.Accept()
	if err != nil {
		return
	}
	s := &shell{agent: a, user: user, channel: channel, gone: make(chan struct{})}
	defer close(s.gone)
	for req := range requests {
		if prepare := s.launcher(req); prepare != nil {
			s.asked = true
			// It may outlive the connection: a main command does.
			a.tasks.Go(func() { s.run(ctx, req, prepare) })
			continue
		}
		reply(req, s.set(req) == nil)
	}
	if !s.asked {
		channel.Close()
	}
}

func reply(req *ssh.Request, ok bool) {
	if req.WantReply {
		req.Reply(ok, nil)
	}
}

// A plan is a process that was asked for: what prepares it, once the root file
// system is there, and whether it is the main command.
type plan struct {
	launch func() (*launch, error)
	main   *guest.Command // nil for another
}

// launcher returns the plan of a request that starts a process. nil: it is
// another request, or one that is refused.
func (s *shell) launcher(req *ssh.Request) *plan {
	if s.asked {
		return nil // a channel has one process
	}
	var t text
	switch req.Type {
	case guest.RequestExec:
		var c guest.Command
		if err := decode(req.Payload, &c); err != nil {
			return nil
		}
		p := &plan{launch: func() (*launch, error) { return commandLaunch(&c, s.terminal()) }}
		if c.Main {
			p.main = &c
		}
		return p
	case guest.RequestArchive:
		var c guest.Archive
		if err := decode(req.Payload, &c); err != nil {
			return nil
		}
		return &plan{launch: func() (*launch, error) { return archiveLaunch(c, s.agent.opts.Program) }}
	case "exec":
		if err := ssh.Unmarshal(req.Payload, &t); err != nil || strings.ContainsRune(t.Text, 0) {
			return nil
		}
		fallthrough
	case "shell":
		return &plan{launch: func() (*launch, error) { return loginLaunch(s.user, t.Text, s.env, s.terminal()) }}
	case "subsystem":
		if err := ssh.Unmarshal(req.Payload, &t); err != nil || t.Text != "sftp" {
			return nil
		}
		return &plan{launch: func() (*launch, error) { return sftpLaunch(s.user, s.agent.opts.Program) }}
	}
	return nil
}

func (s *shell) terminal() *tty {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tty
}

var errRefused = errors.New("refused")

// set obeys the requests that start nothing.
func (s *shell) set(req *ssh.Request) error {
	switch req.Type {
	case "env":
		return s.setEnv(req.Payload)
	case "pty-req":
		return s.setTTY(req.Payload)
	case "window-change":
		return s.resize(req.Payload)
	case "signal":
		var t text
		if err := ssh.Unmarshal(req.Payload, &t); err != nil {
			return err
		}
		n, err := guest.ParseSignal(t.Text)
		if err != nil {
			return err
		}
		return s.signal(syscall.Signal(n))
	}
	return errRefused
}

func (s *shell) setEnv(payload []byte) error {
	var v struct{ Name, Value string }
	if err := ssh.Unmarshal(payload, &v); err != nil {
		return err
	}
	s.envSize += len(payload)
	if s.asked || len(s.env) >= maxEnv || s.envSize > maxEnvBytes || v.Name == "" ||
		strings.ContainsAny(v.Name, "=\x00") || strings.ContainsRune(v.Value, 0) {
		return errRefused
	}
	s.env = append(s.env, v.Name+"="+v.Value)
	return nil
}

func (s *shell) setTTY(payload []byte) error {
	var p ptyRequest
	if err := ssh.Unmarshal(payload, &p); err != nil {
		return err
	}
	if s.asked || strings.ContainsRune(p.Term, 0) {
		return errRefused
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tty = &tty{term: orDefault(p.Term, "xterm"), rows: p.Rows, cols: p.Cols, modes: p.Modes}
	return nil
}

func (s *shell) resize(payload []byte) error {
	var w windowChange
	if err := ssh.Unmarshal(payload, &w); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tty == nil {
		return errRefused
	}
	if s.process == nil {
		t := *s.tty // the process may be starting with the one before
		t.rows, t.cols = w.Rows, w.Cols
		s.tty = &t
		return nil
	}
	return s.process.resize(w.Rows, w.Cols)
}

func (s *shell) signal(sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		return s.process.signal(sig)
	}
	if len(s.pending) == maxPending {
		return errRefused
	}
	s.pending = append(s.pending, sig)
	return nil
}

// run is the life of a process that was asked for, and for a main command of
// the machine.
func (s *shell) run(ctx context.Context, req *ssh.Request, plan *plan) {
	if plan.main == nil {
		s.live(ctx, req, plan)
		return
	}
	if err := s.agent.main.claim(plan.main); err != nil {
		s.fail(req, err)
		s.channel.Close()
		return
	}
	s.live(ctx, req, plan)
	s.agent.mainDone(ctx, s.gone)
}

// live starts a process when the root file system is there, and stays with it
// to its end.
func (s *shell) live(ctx context.Context, req *ssh.Request, plan *plan) {
	defer s.channel.Close()
	if err := s.agent.root.wait(ctx, s.gone); err != nil {
		reply(req, false) // no exit code: it is the machine that failed, and the status says why
		return
	}
	p, err := s.start(plan)
	if err != nil {
		s.fail(req, err)
		return
	}
	gone := s.gone
	if plan.main != nil {
		s.agent.main.started(p)
		gone = nil // a host may come back to it
	}
	reply(req, true)
	s.attend(ctx, p, gone)
}

func (s *shell) start(plan *plan) (*process, error) {
	l, err := plan.launch()
	if err != nil {
		return nil, err
	}
	p, err := l.start()
	if err != nil {
		return nil, fmt.Errorf("start %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.process = p
	if s.tty != nil && s.tty != l.tty && l.tty != nil {
		p.resize(s.tty.rows, s.tty.cols) //nolint:errcheck // the terminal has the size of before
	}
	for _, sig := range s.pending {
		p.signal(sig) //nolint:errcheck // it has ended
	}
	return p, nil
}

// fail answers for a process that could not be started, as a shell would.
func (s *shell) fail(req *ssh.Request, err error) {
	reply(req, true)
	line := "banger: " + strings.ReplaceAll(err.Error(), "\n", " ") + "\n"
	io.WriteString(s.channel.Stderr(), line)                                         //nolint:errcheck // the channel is closed
	s.exit("exit-status", ssh.Marshal(struct{ Code uint32 }{uint32(exitCode(err))})) //nolint:gosec // 126 or 127
}

// attend carries a process's input and output, waits for its end, and says
// how it ended. The process is hung up when gone is closed.
func (s *shell) attend(ctx context.Context, p *process, gone <-chan struct{}) {
	targets := []io.Writer{s.channel, s.channel.Stderr()}
	outputs := make([]*output, len(p.outputs))
	for i, src := range p.outputs {
		outputs[i] = newOutput(src, targets[i])
		s.agent.tasks.Go(func() { outputs[i].carry(ctx) })
	}
	if p.stdin != nil {
		s.agent.tasks.Go(func() { s.feed(p) })
	}
	ended := make(chan struct{})
	s.agent.tasks.Go(func() { p.hangUp(ctx, gone, ended) })
	status, err := p.wait()
	close(ended)
	if p.stdin != nil && p.stdin != p.master {
		p.stdin.Close()
	}
	for _, o := range outputs {
		o.settle()
	}
	for _, o := range outputs {
		<-o.done
	}
	s.channel.CloseWrite() //nolint:errcheck // the client has closed it
	if err == nil {
		s.report(status)
	}
}

// feed passes the channel's data on. The end of it is the end of a pipe; a
// terminal has no end.
func (s *shell) feed(p *process) {
	io.Copy(p.stdin, s.channel) //nolint:errcheck // the process reads no more, which is its right
	if p.stdin != p.master {
		p.stdin.Close()
	}
}

// report sends exit-status or exit-signal (RFC 4254, section 6.10).
func (s *shell) report(status syscall.WaitStatus) {
	if !status.Signaled() {
		s.exit("exit-status", ssh.Marshal(struct{ Code uint32 }{uint32(status.ExitStatus())})) //nolint:gosec // a byte
		return
	}
	s.exit("exit-signal", ssh.Marshal(struct {
		Name    string
		Core    bool
		Message string
		Lang    string
	}{guest.SignalName(int(status.Signal())), status.CoreDump(), "", ""}))
}

func (s *shell) exit(kind string, payload []byte) {
	s.channel.SendRequest(kind, false, payload) //nolint:errcheck // the channel is closed, nobody wants to know
}
