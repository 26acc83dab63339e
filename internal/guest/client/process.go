package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/crypto/ssh"

	"github.com/banger-vm/banger/internal/guest"
)

// partSize is the number of bytes of a request's JSON in one SSH request. A packet
// of golang.org/x/crypto/ssh has at most 256 KiB.
const partSize = 128 << 10

// Stdio holds the input and the outputs of a process. A nil stream is empty,
// and a nil output is discarded. With a terminal, all output goes to Out. In is
// read until it ends or the process has ended; a pending Read is not
// interrupted.
type Stdio struct {
	In       io.Reader
	Out, Err io.Writer
	TTY      *TTY // nil for no terminal
}

// TTY describes a terminal to create for a process.
type TTY struct {
	Term       string
	Rows, Cols int
}

// Exit is the result of a process.
type Exit struct {
	Code   int    // exit status; 128 plus the signal's number if a signal ended the process
	Signal string // name of that signal, such as KILL or RTMIN+3
}

// A Process is a process that was started in the machine.
type Process struct {
	channel ssh.Channel
	outputs sync.WaitGroup
	done    chan struct{} // closed when the channel is closed
	exit    *Exit         // valid after done is closed; nil if the guest sent no status

	mu  sync.Mutex
	err error // first error of Out or Err
}

// ErrLost is returned if the connection ended before the process did.
var ErrLost = errors.New("connection to the machine lost")

// Start starts a command. It returns when the process runs, or when the guest
// could not start it. In the second case Wait returns the exit code.
func (c *Client) Start(ctx context.Context, command guest.Command, streams Stdio) (*Process, error) {
	p, err := c.start(ctx, guest.RequestExec, command, streams)
	if err != nil {
		return nil, fmt.Errorf("start command: %w", err)
	}
	return p, nil
}

// Archive starts to copy files, or to get information about a file. The tar
// stream or the JSON is the output or input of the process.
func (c *Client) Archive(ctx context.Context, archive guest.Archive, streams Stdio) (*Process, error) {
	p, err := c.start(ctx, guest.RequestArchive, archive, streams)
	if err != nil {
		return nil, fmt.Errorf("start to copy: %w", err)
	}
	return p, nil
}

func (c *Client) start(ctx context.Context, request string, payload any, streams Stdio) (*Process, error) {
	b, err := json.Marshal(payload)
	if err != nil {
		return nil, err
	}
	if len(b) > guest.MaxRequest {
		return nil, fmt.Errorf("the request has %d bytes, more than %d", len(b), guest.MaxRequest)
	}
	type result struct {
		p   *Process
		err error
	}
	started := make(chan result, 1)
	go func() { // ends at the latest with the connection
		p, err := c.open(ctx, request, b, streams)
		started <- result{p, err}
	}()
	select {
	case r := <-started:
		return r.p, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// open starts the process of a request. If ctx ends before the reply, open
// closes the channel. The guest then does not start the command, or hangs it
// up.
func (c *Client) open(ctx context.Context, request string, payload []byte, streams Stdio) (*Process, error) {
	channel, requests, err := c.conn.OpenChannel("session", nil)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { channel.Close() })
	defer stop()
	if t := streams.TTY; t != nil {
		// The reply is not awaited. If the terminal fails, the next request is
		// refused, or the command runs without a terminal.
		if _, err := channel.SendRequest("pty-req", false, t.request()); err != nil {
			return nil, errors.Join(err, channel.Close())
		}
	}
	p := &Process{channel: channel, done: make(chan struct{})}
	// The outputs are read from here on, because the guest may send more than a
	// window before the reply.
	p.copyOutputs(streams)
	go p.handleRequests(requests)
	for len(payload) > partSize {
		if _, err := channel.SendRequest(guest.RequestPart, false, ssh.Marshal(stringPayload{string(payload[:partSize])})); err != nil {
			return nil, errors.Join(err, channel.Close())
		}
		payload = payload[partSize:]
	}
	ok, err := channel.SendRequest(request, true, ssh.Marshal(stringPayload{string(payload)}))
	if err == nil && !ok {
		err = errors.New("the guest's agent refused the request")
	}
	if err != nil {
		return nil, errors.Join(err, channel.Close())
	}
	if streams.In != nil {
		go p.copyStdin(streams.In)
	}
	return p, nil
}

func (t *TTY) request() []byte {
	return ssh.Marshal(struct {
		Term                      string
		Cols, Rows, Width, Height uint32
		Modes                     string
	}{t.Term, uint32(t.Cols), uint32(t.Rows), 0, 0, "\x00"})
}

// copyOutputs copies both outputs.
func (p *Process) copyOutputs(streams Stdio) {
	for _, o := range []struct {
		dst io.Writer
		src io.Reader
	}{{streams.Out, p.channel}, {streams.Err, p.channel.Stderr()}} {
		if o.dst == nil {
			o.dst = io.Discard
		}
		p.outputs.Go(func() {
			if _, err := io.Copy(o.dst, o.src); err != nil {
				p.fail(err)
			}
		})
	}
}

// fail closes the channel of a process whose output cannot be written. The
// process would block otherwise.
func (p *Process) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = fmt.Errorf("write output: %w", err)
	}
	p.channel.Close()
}

// copyStdin copies the input. The end of the input is EOF for the process.
func (p *Process) copyStdin(in io.Reader) {
	// An error means that the process has closed its input or has ended.
	_, _ = io.Copy(p.channel, in)
	_ = p.channel.CloseWrite()
}

// handleRequests reads the process's exit status and waits for the end of the
// channel.
func (p *Process) handleRequests(requests <-chan *ssh.Request) {
	defer close(p.done)
	for req := range requests {
		if exit := exitOf(req); exit != nil {
			p.exit = exit
		}
		if req.WantReply {
			req.Reply(false, nil)
		}
	}
	p.channel.Close()
}

func exitOf(req *ssh.Request) *Exit {
	switch req.Type {
	case "exit-status":
		var status struct{ Code uint32 }
		if ssh.Unmarshal(req.Payload, &status) == nil {
			return &Exit{Code: int(status.Code & 0xff)}
		}
	case "exit-signal":
		var signal struct {
			Name    string
			Core    bool
			Message string
			Lang    string
		}
		if ssh.Unmarshal(req.Payload, &signal) != nil {
			return nil
		}
		n, err := guest.ParseSignal(signal.Name)
		if err != nil {
			n = 127 // a signal that Linux does not have
		}
		return &Exit{Code: 128 + n, Signal: signal.Name}
	}
	return nil
}

// Wait waits until the process has ended and its outputs are written.
func (p *Process) Wait() (Exit, error) {
	p.outputs.Wait()
	<-p.done
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return Exit{}, p.err
	}
	if p.exit == nil {
		return Exit{}, ErrLost
	}
	return *p.exit, nil
}

// Signal sends a signal to the process. name is a name such as TERM, SIGTERM or
// SIGRTMIN+3, or a number.
func (p *Process) Signal(name string) error {
	n, err := guest.ParseSignal(name)
	if err != nil {
		return err
	}
	return p.request("signal", ssh.Marshal(stringPayload{guest.SignalName(n)}))
}

// HangUp closes the channel. The guest then hangs up the process, as at the end
// of its terminal.
func (p *Process) HangUp() {
	p.channel.Close()
}

// Resize sets the size of the process's terminal.
func (p *Process) Resize(rows, cols int) error {
	return p.request("window-change", ssh.Marshal(struct{ Cols, Rows, Width, Height uint32 }{
		uint32(cols), uint32(rows), 0, 0,
	}))
}

func (p *Process) request(name string, payload []byte) error {
	if _, err := p.channel.SendRequest(name, false, payload); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil // the process has ended if it is io.EOF
}
