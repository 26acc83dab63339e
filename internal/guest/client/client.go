// Package client is the host's side of the agent inside a machine. It runs
// commands there, with their input, output and terminal, copies files, and
// requests the machine's state and shutdown. It uses SSH over one connection,
// usually a stream of package link, and accepts only the machine's own host
// key. It does not know machines: the caller starts them and provides the
// connections.
package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/banger-vm/banger/internal/guest"
)

// A Client is one SSH connection to an agent. Several goroutines may call its
// methods at the same time.
type Client struct {
	conn *ssh.Client
	done chan struct{} // closed when the connection has ended and err is set
	err  error         // what has ended the connection
}

// New logs in to the agent at the other end of stream. If it succeeds, the
// Client owns stream. New uses only HostPublic and ClientPrivate of keys.
func New(ctx context.Context, stream net.Conn, keys Keys) (*Client, error) {
	config, err := keys.config()
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	conn, channels, requests, err := ssh.NewClientConn(stream, "", config)
	if !stop() && err == nil {
		err = conn.Close() // ctx ended and closed the stream
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
		c.err = c.conn.Wait()
	}()
	return c, nil
}

// config selects the cheapest algorithms that both sides support. The guest
// offers AES-GCM only if its processor is fast at it.
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

// Violation returns the reason if the connection has ended because the guest has
// violated SSH's protocol. It returns nil while there is a connection, if the guest or
// Close has ended it, and after an error of the stream below it.
func (c *Client) Violation() error {
	select {
	case <-c.done:
	default:
		return nil
	}
	// The package ssh has no type for most of its errors, but all of them begin so.
	if c.err == nil || !strings.HasPrefix(c.err.Error(), "ssh: ") {
		return nil
	}
	return c.err
}

// Close ends the connection. The guest hangs up commands that still run, except
// for the main command.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.done
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// stringPayload is a payload of one SSH string.
type stringPayload struct{ Text string }

// request sends a global request and decodes the reply into v, unless v is nil.
func (c *Client) request(ctx context.Context, name string, payload, v any) error {
	b, err := json.Marshal(payload)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	type answer struct {
		ok      bool
		payload []byte
		err     error
	}
	answered := make(chan answer, 1)
	go func() { // ends at the latest with the connection
		ok, payload, err := c.conn.SendRequest(name, true, ssh.Marshal(stringPayload{string(b)}))
		answered <- answer{ok, payload, err}
	}()
	select {
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", name, ctx.Err())
	case a := <-answered:
		if a.err != nil {
			return fmt.Errorf("%s: %w", name, a.err)
		}
		if !a.ok {
			return fmt.Errorf("%s: guest: %q", name, a.payload)
		}
		return decodeReply(name, a.payload, v)
	}
}

func decodeReply(name string, payload []byte, v any) error {
	if v == nil {
		return nil
	}
	var t stringPayload
	if err := ssh.Unmarshal(payload, &t); err != nil {
		return fmt.Errorf("%s: read answer: %w", name, err)
	}
	if err := json.Unmarshal([]byte(t.Text), v); err != nil {
		return fmt.Errorf("%s: read answer: %w", name, err)
	}
	return nil
}

// PowerOff requests the machine's shutdown (guest.RequestPowerOff). It returns
// when the guest has accepted the request.
func (c *Client) PowerOff(ctx context.Context, grace time.Duration) error {
	return c.request(ctx, guest.RequestPowerOff, guest.PowerOff{Grace: grace.Milliseconds()}, nil)
}

// Status returns the machine's state.
func (c *Client) Status(ctx context.Context) (guest.Status, error) {
	var s guest.Status
	err := c.request(ctx, guest.RequestStatus, struct{}{}, &s)
	return s, err
}

// SetClock sets the machine's clock.
func (c *Client) SetClock(ctx context.Context, now time.Time) error {
	return c.request(ctx, guest.RequestClock, guest.Clock{Time: now.UnixNano()}, nil)
}
