package agent

import (
	"cmp"
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

// The limits of the requests that precede a process.
const (
	maxEnv      = 256      // variables
	maxEnvBytes = 64 << 10 // of the env requests' payloads
	maxPending  = 16       // signals
)

// A session is a session channel (RFC 4254, section 6). It runs one process.
type session struct {
	agent     *agent
	user      string
	listeners *reverse
	channel   ssh.Channel
	closed    chan struct{} // closed when the client has closed the channel
	env       []string
	envSize   int
	parts     []byte // the JSON of RequestPart requests
	requested bool   // the client has requested a process
	withAgent bool   // the process gets the client's SSH agent

	mu      sync.Mutex
	tty     *tty
	process *process
	pending []syscall.Signal // signals that arrived before the process started
}

func (a *agent) serveSession(ctx context.Context, ch ssh.NewChannel, listeners *reverse) {
	channel, requests, err := ch.Accept()
	if err != nil {
		return
	}
	s := &session{agent: a, user: listeners.conn.User(), listeners: listeners, channel: channel, closed: make(chan struct{})}
	defer close(s.closed)
	for req := range requests {
		if prepare := s.planFor(req); prepare != nil {
			s.requested = true
			// The process may outlive the connection if it is the main command.
			a.tasks.Go(func() { s.run(ctx, req, prepare) })
			continue
		}
		reply(req, s.configure(req) == nil)
	}
	if !s.requested {
		channel.Close()
	}
}

func reply(req *ssh.Request, ok bool) {
	if req.WantReply {
		req.Reply(ok, nil)
	}
}

// A plan is a requested process. launch prepares it after the root file system
// is in place.
type plan struct {
	launch func() (*launch, error)
	main   *guest.Command // nil unless it is the main command
}

// planFor returns the plan of a request that starts a process. It returns nil
// for other requests and for a request that is refused.
func (s *session) planFor(req *ssh.Request) *plan {
	if s.requested {
		return nil // a channel has only one process
	}
	var t stringPayload
	switch req.Type {
	case guest.RequestExec:
		var c guest.Command
		if err := decodeParts(s.parts, req.Payload, &c); err != nil {
			return nil
		}
		p := &plan{launch: func() (*launch, error) { return commandLaunch(&c, s.terminal()) }}
		if c.Main {
			p.main = &c
		}
		return p
	case guest.RequestArchive:
		var c guest.Archive
		if err := decodeJSON(req.Payload, &c); err != nil {
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

func (s *session) terminal() *tty {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tty
}

// addPart keeps a part of the JSON of the request that follows.
func (s *session) addPart(payload []byte) error {
	var t stringPayload
	if err := ssh.Unmarshal(payload, &t); err != nil {
		return err
	}
	if len(s.parts)+len(t.Text) > guest.MaxRequest {
		return errRefused
	}
	s.parts = append(s.parts, t.Text...)
	return nil
}

var errRefused = errors.New("refused")

// configure carries out the requests that do not start a process.
func (s *session) configure(req *ssh.Request) error {
	switch req.Type {
	case "env":
		return s.setEnv(req.Payload)
	case "auth-agent-req@openssh.com":
		if s.requested {
			return errRefused
		}
		s.withAgent = true
		return nil
	case guest.RequestPart:
		return s.addPart(req.Payload)
	case "pty-req":
		return s.setTTY(req.Payload)
	case "window-change":
		return s.resize(req.Payload)
	case "signal":
		var t stringPayload
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

func (s *session) setEnv(payload []byte) error {
	var v struct{ Name, Value string }
	if err := ssh.Unmarshal(payload, &v); err != nil {
		return err
	}
	s.envSize += len(payload)
	if s.requested || len(s.env) >= maxEnv || s.envSize > maxEnvBytes || v.Name == "" ||
		strings.ContainsAny(v.Name, "=\x00") || strings.ContainsRune(v.Value, 0) {
		return errRefused
	}
	s.env = append(s.env, v.Name+"="+v.Value)
	return nil
}

func (s *session) setTTY(payload []byte) error {
	var p ptyRequest
	if err := ssh.Unmarshal(payload, &p); err != nil {
		return err
	}
	if s.requested || strings.ContainsRune(p.Term, 0) {
		return errRefused
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tty = &tty{term: cmp.Or(p.Term, "xterm"), rows: p.Rows, cols: p.Cols, modes: p.Modes}
	return nil
}

func (s *session) resize(payload []byte) error {
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
		t := *s.tty // a copy, because the process may be starting with the old size
		t.rows, t.cols = w.Rows, w.Cols
		s.tty = &t
		return nil
	}
	return s.process.resize(w.Rows, w.Cols)
}

func (s *session) signal(sig syscall.Signal) error {
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

// run runs a requested process. If it is the machine's main command, run
// reports its end to process 1.
func (s *session) run(ctx context.Context, req *ssh.Request, plan *plan) {
	if plan.main == nil {
		s.runProcess(ctx, req, plan)
		return
	}
	if err := s.agent.main.claim(plan.main); err != nil {
		s.fail(req, err)
		s.channel.Close()
		return
	}
	s.runProcess(ctx, req, plan)
	s.agent.reportMainEnd(ctx, s.closed)
}

// runProcess waits for the root file system, starts a process and serves it
// until it ends.
func (s *session) runProcess(ctx context.Context, req *ssh.Request, plan *plan) {
	defer s.channel.Close()
	if err := s.agent.root.wait(ctx, s.closed); err != nil {
		reply(req, false) // without an exit code, because the machine failed; guest.Status has the reason
		return
	}
	removeAgent, err := s.addAgent(ctx)
	if err != nil {
		s.fail(req, fmt.Errorf("forward SSH agent: %w", err))
		return
	}
	defer removeAgent()
	p, err := s.start(plan)
	if err != nil {
		s.fail(req, err)
		return
	}
	closed := s.closed
	if plan.main != nil {
		s.agent.main.setProcess(p)
		closed = nil // the main command keeps running, because the host may reconnect
	}
	reply(req, true)
	s.serveProcess(ctx, p, closed)
}

// addAgent gives the process the client's SSH agent, if the client wants it.
func (s *session) addAgent(ctx context.Context) (remove func(), err error) {
	if !s.withAgent {
		return func() {}, nil
	}
	acc, err := etc().find(s.user)
	if err != nil {
		return nil, err
	}
	path, remove, err := s.listeners.agentSocket(ctx, acc)
	s.env = append(s.env, "SSH_AUTH_SOCK="+path)
	return remove, err
}

func (s *session) start(plan *plan) (*process, error) {
	l, err := plan.launch()
	if err != nil {
		return nil, err
	}
	p, err := l.start(s.agent.protect)
	if err != nil {
		return nil, fmt.Errorf("start %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.process = p
	if s.tty != nil && s.tty != l.tty && l.tty != nil {
		// If this fails, the terminal keeps its old size.
		_ = p.resize(s.tty.rows, s.tty.cols)
	}
	for _, sig := range s.pending {
		_ = p.signal(sig) // the process may have ended
	}
	return p, nil
}

// fail answers the request of a process that could not be started, as a shell
// would.
func (s *session) fail(req *ssh.Request, err error) {
	reply(req, true)
	line := "banger: " + strings.ReplaceAll(err.Error(), "\n", " ") + "\n"
	fmt.Fprint(s.channel.Stderr(), line)
	s.sendExit("exit-status", ssh.Marshal(struct{ Code uint32 }{uint32(exitCode(err))}))
}

// serveProcess copies a process's input and output, waits for it to end, and
// sends its exit status. If closed is closed first, it ends the process.
func (s *session) serveProcess(ctx context.Context, p *process, closed <-chan struct{}) {
	targets := []io.Writer{s.channel, s.channel.Stderr()}
	outputs := make([]*output, len(p.outputs))
	for i, src := range p.outputs {
		outputs[i] = newOutput(src, targets[i])
		s.agent.tasks.Go(func() { outputs[i].run(ctx) })
	}
	if p.stdin != nil {
		s.agent.tasks.Go(func() { s.copyStdin(p) })
	}
	ended := make(chan struct{})
	s.agent.tasks.Go(func() { p.endOnClose(ctx, closed, ended) })
	status, err := p.wait()
	close(ended)
	if p.stdin != nil && p.stdin != p.master {
		p.stdin.Close()
	}
	for _, o := range outputs {
		o.processEnded()
	}
	for _, o := range outputs {
		<-o.done
	}
	_ = s.channel.CloseWrite() // the client may have closed the channel
	if err == nil {
		s.sendStatus(status)
	}
}

// copyStdin copies the channel's data to the process. At the end of the data it
// closes a pipe; a terminal stays open.
func (s *session) copyStdin(p *process) {
	// An error means that the process has closed its input, which it may.
	_, _ = io.Copy(p.stdin, s.channel)
	if p.stdin != p.master {
		p.stdin.Close()
	}
}

// sendStatus sends exit-status or exit-signal (RFC 4254, section 6.10).
func (s *session) sendStatus(status syscall.WaitStatus) {
	if !status.Signaled() {
		s.sendExit("exit-status", ssh.Marshal(struct{ Code uint32 }{uint32(status.ExitStatus())}))
		return
	}
	s.sendExit("exit-signal", ssh.Marshal(struct {
		Name    string
		Core    bool
		Message string
		Lang    string
	}{guest.SignalName(int(status.Signal())), status.CoreDump(), "", ""}))
}

func (s *session) sendExit(kind string, payload []byte) {
	// An error means that the client has closed the channel.
	_, _ = s.channel.SendRequest(kind, false, payload)
}
