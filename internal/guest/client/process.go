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

// maxRequest is how long a request may be, encoded: an SSH packet has 256 KiB
// at most in golang.org/x/crypto/ssh.
const maxRequest = 250 << 10

// Stdio is where a process's input and output are. Nil is nothing. Err gets
// nothing when there is a terminal. In is read until the process ends or In
// does; a Read that waits is left waiting.
type Stdio struct {
	In       io.Reader
	Out, Err io.Writer
	TTY      *TTY // nil: no terminal
}

// TTY is a terminal to make for a process.
type TTY struct {
	Term       string
	Rows, Cols int
}

// Exit is how a process ended.
type Exit struct {
	Code   int    // its exit status; 128 and the signal's number where one ended it
	Signal string // that signal, such as KILL or RTMIN+3
}

// A Process is one that was started in the machine.
type Process struct {
	channel ssh.Channel
	outputs sync.WaitGroup
	done    chan struct{} // closed when the channel is
	exit    *Exit         // valid then; nil for none

	mu  sync.Mutex
	err error // of Out or Err
}

// ErrLost says that the connection ended before the process did.
var ErrLost = errors.New("connection to the machine lost")

// Start starts a command. It returns when the process runs, or when the guest
// has found that it cannot; that is an Exit too.
func (c *Client) Start(ctx context.Context, command guest.Command, streams Stdio) (*Process, error) {
	p, err := c.begin(ctx, guest.RequestExec, command, streams)
	if err != nil {
		return nil, fmt.Errorf("start command: %w", err)
	}
	return p, nil
}

// Archive starts to copy files: the tar stream, or what is known of a file, is
// the process's output or input.
func (c *Client) Archive(ctx context.Context, archive guest.Archive, streams Stdio) (*Process, error) {
	p, err := c.begin(ctx, guest.RequestArchive, archive, streams)
	if err != nil {
		return nil, fmt.Errorf("start to copy: %w", err)
	}
	return p, nil
}

func (c *Client) begin(ctx context.Context, request string, payload any, streams Stdio) (*Process, error) {
	b, err := json.Marshal(payload)
	if err != nil {
		return nil, err
	}
	if len(b) > maxRequest {
		return nil, fmt.Errorf("the request has %d bytes, more than %d", len(b), maxRequest)
	}
	type result struct {
		p   *Process
		err error
	}
	started := make(chan result, 1)
	go func() { // ends with the connection at the latest
		p, err := c.start(ctx, request, b, streams)
		started <- result{p, err}
	}()
	select {
	case r := <-started:
		return r.p, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// start closes the channel when ctx ends before the answer comes, so that the
// command is not started any more, or is hung up.
func (c *Client) start(ctx context.Context, request string, payload []byte, streams Stdio) (*Process, error) {
	channel, requests, err := c.conn.OpenChannel("session", nil)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { channel.Close() })
	defer stop()
	if t := streams.TTY; t != nil {
		// Not waited for: without a terminal the next request is refused or goes without.
		if _, err := channel.SendRequest("pty-req", false, t.request()); err != nil {
			return nil, errors.Join(err, channel.Close())
		}
	}
	p := &Process{channel: channel, done: make(chan struct{})}
	// The outputs are read from the start, since more than a window may come before the answer.
	p.carry(streams)
	go p.follow(requests)
	ok, err := channel.SendRequest(request, true, ssh.Marshal(text{string(payload)}))
	if err == nil && !ok {
		err = errors.New("the guest's agent refused the request")
	}
	if err != nil {
		return nil, errors.Join(err, channel.Close())
	}
	if streams.In != nil {
		go p.feed(streams.In)
	}
	return p, nil
}

func (t *TTY) request() []byte {
	return ssh.Marshal(struct {
		Term                      string
		Cols, Rows, Width, Height uint32
		Modes                     string
	}{t.Term, uint32(t.Cols), uint32(t.Rows), 0, 0, "\x00"}) //nolint:gosec // a terminal's size
}

// carry copies both outputs.
func (p *Process) carry(streams Stdio) {
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

// fail ends a process whose output cannot be written: it would wait for ever.
func (p *Process) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = fmt.Errorf("write output: %w", err)
	}
	p.channel.Close()
}

// feed copies the input, whose end is the process's end of file.
func (p *Process) feed(in io.Reader) {
	io.Copy(p.channel, in) //nolint:errcheck // the process reads no more, or its end says so
	p.channel.CloseWrite() //nolint:errcheck // likewise
}

// follow waits for the process's exit status and the channel's end.
func (p *Process) follow(requests <-chan *ssh.Request) {
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
			n = 127 // a signal, but none that Linux has
		}
		return &Exit{Code: 128 + n, Signal: signal.Name}
	}
	return nil
}

// Wait waits for the process's end and for its outputs to be written.
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

// Signal sends the process a signal: a name such as TERM, SIGTERM or
// SIGRTMIN+3, or a number.
func (p *Process) Signal(name string) error {
	n, err := guest.ParseSignal(name)
	if err != nil {
		return err
	}
	return p.request("signal", ssh.Marshal(text{guest.SignalName(n)}))
}

// HangUp gives the process up: it is hung up, as by the end of its terminal.
func (p *Process) HangUp() {
	p.channel.Close()
}

// Resize tells the process's terminal its new size.
func (p *Process) Resize(rows, cols int) error {
	return p.request("window-change", ssh.Marshal(struct{ Cols, Rows, Width, Height uint32 }{
		uint32(cols), uint32(rows), 0, 0, //nolint:gosec // a terminal's size
	}))
}

func (p *Process) request(name string, payload []byte) error {
	if _, err := p.channel.SendRequest(name, false, payload); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil // io.EOF: the process has ended
}
