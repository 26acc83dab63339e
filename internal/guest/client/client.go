// Package client is the host's side of the agent inside a machine: it runs
// commands there, with their input, output and terminal, and asks for the
// machine's state and end. It speaks SSH over one stream of package link, or
// over whatever leads there, and accepts no host key but the machine's own.
// It does not know machines: who starts them and where their streams come
// from is its caller's.
package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/banger-vm/banger/internal/guest"
)

// A Client is one SSH connection to an agent. Its methods may be called by
// several goroutines.
type Client struct {
	conn *ssh.Client
	done chan struct{}
}

// New logs in to the agent at the other end of stream, which the Client owns
// when there is no error. Of keys it needs HostPublic and ClientPrivate.
func New(ctx context.Context, stream net.Conn, keys Keys) (*Client, error) {
	config, err := keys.config()
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	conn, channels, requests, err := ssh.NewClientConn(stream, "", config)
	if !stop() && err == nil {
		err = conn.Close() // ctx has ended, and the stream with it
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("log in to the guest's agent: %w", err)
	}
	c := &Client{conn: ssh.NewClient(conn, channels, requests), done: make(chan struct{})}
	go func() {
		defer close(c.done)
		c.conn.Wait() //nolint:errcheck // whoever waits for an answer gets the error
	}()
	return c, nil
}

// config takes, of what both sides know, what costs least. The guest offers
// AES-GCM where that is fast.
func (k Keys) config() (*ssh.ClientConfig, error) {
	host, _, _, _, err := ssh.ParseAuthorizedKey([]byte(k.HostPublic))
	if err != nil {
		return nil, fmt.Errorf("read machine's key: %w", err)
	}
	signer, err := ssh.ParsePrivateKey([]byte(k.ClientPrivate))
	if err != nil {
		return nil, fmt.Errorf("read key for the machine: %w", err)
	}
	return &ssh.ClientConfig{
		Config: ssh.Config{
			KeyExchanges: []string{ssh.KeyExchangeCurve25519},
			Ciphers:      []string{ssh.CipherAES128GCM, ssh.CipherChaCha20Poly1305},
		},
		User:              "root",
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback:   ssh.FixedHostKey(host),
		HostKeyAlgorithms: []string{host.Type()},
		ClientVersion:     "SSH-2.0-banger",
	}, nil
}

// Close ends the connection. Commands that still run are hung up, but for a
// main command.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.done
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// text is a payload that is one SSH string.
type text struct{ Text string }

// ask sends a request about the machine and reads its answer into v, unless
// that is nil.
func (c *Client) ask(ctx context.Context, request string, payload, v any) error {
	b, err := json.Marshal(payload)
	if err != nil {
		return fmt.Errorf("%s: %w", request, err)
	}
	type answer struct {
		ok      bool
		payload []byte
		err     error
	}
	answered := make(chan answer, 1)
	go func() { // ends with the connection at the latest
		ok, payload, err := c.conn.SendRequest(request, true, ssh.Marshal(text{string(b)}))
		answered <- answer{ok, payload, err}
	}()
	select {
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", request, ctx.Err())
	case a := <-answered:
		if a.err != nil {
			return fmt.Errorf("%s: %w", request, a.err)
		}
		if !a.ok {
			return fmt.Errorf("%s: guest: %q", request, a.payload)
		}
		return read(request, a.payload, v)
	}
}

func read(request string, payload []byte, v any) error {
	if v == nil {
		return nil
	}
	var t text
	if err := ssh.Unmarshal(payload, &t); err != nil {
		return fmt.Errorf("%s: read answer: %w", request, err)
	}
	if err := json.Unmarshal([]byte(t.Text), v); err != nil {
		return fmt.Errorf("%s: read answer: %w", request, err)
	}
	return nil
}

// PowerOff asks for the machine's end: guest.RequestPowerOff. It returns when
// the request was taken.
func (c *Client) PowerOff(ctx context.Context, grace time.Duration) error {
	return c.ask(ctx, guest.RequestPowerOff, guest.PowerOff{Grace: grace.Milliseconds()}, nil)
}

// Status asks for the machine's state.
func (c *Client) Status(ctx context.Context) (guest.Status, error) {
	var s guest.Status
	err := c.ask(ctx, guest.RequestStatus, struct{}{}, &s)
	return s, err
}

// SetClock sets the machine's clock.
func (c *Client) SetClock(ctx context.Context, now time.Time) error {
	return c.ask(ctx, guest.RequestClock, guest.Clock{Time: now.UnixNano()}, nil)
}
