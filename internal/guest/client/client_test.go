package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/banger-vm/banger/internal/guest"
)

// serve accepts logins with the host key of keys, and calls do for each
// session.
func serve(t *testing.T, keys Keys, do func(ssh.Channel, <-chan *ssh.Request)) net.Conn {
	t.Helper()
	host, err := ssh.ParsePrivateKey([]byte(keys.HostPrivate))
	if err != nil {
		t.Fatal(err)
	}
	known, _, _, _, err := ssh.ParseAuthorizedKey([]byte(keys.ClientPublic))
	if err != nil {
		t.Fatal(err)
	}
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if !bytes.Equal(key.Marshal(), known.Marshal()) {
			return nil, errors.New("unknown key")
		}
		return &ssh.Permissions{}, nil
	}}
	config.AddHostKey(host)
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_, channels, requests, err := ssh.NewServerConn(conn, config)
		if err != nil {
			return
		}
		go ssh.DiscardRequests(requests)
		for ch := range channels {
			if channel, requests, err := ch.Accept(); err == nil {
				go do(channel, requests)
			}
		}
	}()
	stream, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, c := range []io.Closer{l, stream} {
			c.Close()
		}
		<-done
	})
	return stream
}

func newKeys(t *testing.T) Keys {
	t.Helper()
	keys, err := NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// connected returns a client of a server that accepts exec and then calls do.
func connected(t *testing.T, do func(ssh.Channel)) *Client {
	t.Helper()
	keys := newKeys(t)
	stream := serve(t, keys, func(ch ssh.Channel, requests <-chan *ssh.Request) {
		for req := range requests {
			if req.Type != guest.RequestExec {
				continue
			}
			if err := req.Reply(true, nil); err == nil {
				go do(ch)
			}
		}
	})
	c, err := New(t.Context(), stream, keys)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNewKeysAreDifferent(t *testing.T) {
	a, b := newKeys(t), newKeys(t)
	all := map[string]bool{}
	for _, k := range []Keys{a, b} {
		for _, s := range []string{k.HostPrivate, k.HostPublic, k.ClientPrivate, k.ClientPublic} {
			all[s] = true
		}
		if !strings.HasPrefix(k.HostPublic, "ssh-ed25519 ") || !strings.HasSuffix(k.HostPublic, "\n") {
			t.Errorf("public key %q", k.HostPublic)
		}
	}
	if len(all) != 8 {
		t.Errorf("%d of 8 keys are different", len(all))
	}
}

func TestHostKeyIsPinned(t *testing.T) {
	keys := newKeys(t)
	stream := serve(t, keys, nil)
	keys.HostPublic = newKeys(t).HostPublic
	if _, err := New(t.Context(), stream, keys); err == nil || !strings.Contains(err.Error(), "host key") {
		t.Errorf("got %v, want an error about the host key", err)
	}
	for _, bad := range []Keys{{}, {HostPublic: keys.HostPublic}, {ClientPrivate: keys.ClientPrivate}} {
		if _, err := New(t.Context(), stream, bad); err == nil {
			t.Error("logged in without keys")
		}
	}
}

func TestNewStopsWithContext(t *testing.T) {
	ours, theirs := net.Pipe()
	// The other end never answers.
	go func() { ignore(io.Copy(io.Discard, theirs)) }()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := New(ctx, ours, newKeys(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's error", err)
	}
}

// ignore discards results that the test checks in another way.
func ignore(...any) {}

type broken struct{}

var errBroken = errors.New("broken")

func (broken) Write([]byte) (int, error) { return 0, errBroken }

// If an output cannot be written, the process ends with the output's error.
func TestBrokenOutput(t *testing.T) {
	c := connected(t, func(ch ssh.Channel) {
		// The copy ends when the channel is closed.
		ignore(io.Copy(ch, endless{}))
	})
	p, err := c.Start(t.Context(), guest.Command{Args: []string{"yes"}}, Stdio{Out: broken{}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(); !errors.Is(err, errBroken) {
		t.Errorf("got %v, want the output's error", err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// A channel that ends without an exit status is a lost process.
func TestLostConnection(t *testing.T) {
	c := connected(t, func(ch ssh.Channel) {
		ch.Close()
	})
	p, err := c.Start(t.Context(), guest.Command{Args: []string{"x"}}, Stdio{})
	if err != nil {
		t.Fatal(err)
	}
	if exit, err := p.Wait(); !errors.Is(err, ErrLost) {
		t.Errorf("got %+v, %v", exit, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	<-c.done
	if _, err := c.Start(t.Context(), guest.Command{Args: []string{"x"}}, Stdio{}); err == nil {
		t.Error("a command was started over a closed connection")
	}
}

func TestExits(t *testing.T) {
	signal := func(name string) []byte {
		return ssh.Marshal(struct {
			Name    string
			Core    bool
			Message string
			Lang    string
		}{name, true, "m", "l"})
	}
	for _, row := range []struct {
		kind    string
		payload []byte
		want    *Exit
	}{
		{"exit-status", []byte{0, 0, 0, 7}, &Exit{Code: 7}},
		{"exit-status", []byte{0, 0, 1, 7}, &Exit{Code: 7}},
		{"exit-status", []byte{0, 0}, nil},
		{"exit-signal", signal("KILL"), &Exit{137, "KILL"}},
		{"exit-signal", signal("RTMIN+3"), &Exit{165, "RTMIN+3"}},
		{"exit-signal", signal("NONE"), &Exit{255, "NONE"}},
		{"exit-signal", []byte{1}, nil},
		{"other", nil, nil},
	} {
		got := exitOf(&ssh.Request{Type: row.kind, Payload: row.payload})
		if (got == nil) != (row.want == nil) || got != nil && *got != *row.want {
			t.Errorf("%s %q: got %v, want %v", row.kind, row.payload, got, row.want)
		}
	}
}

func TestCommandIsBounded(t *testing.T) {
	var c Client // the size is checked before the connection is used
	long := guest.Command{Args: []string{strings.Repeat("x", guest.MaxRequest)}}
	if _, err := c.Start(t.Context(), long, Stdio{}); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("got %v", err)
	}
}

// If ctx ends during a start, the client closes the channel.
func TestStartStopsWithContext(t *testing.T) {
	keys := newKeys(t)
	closed := make(chan struct{})
	stream := serve(t, keys, func(ch ssh.Channel, requests <-chan *ssh.Request) {
		for range requests { // none is answered until the client closes the channel
		}
		close(closed)
		ch.Close()
	})
	c, err := New(t.Context(), stream, keys)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Start(ctx, guest.Command{Args: []string{"x"}}, Stdio{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's error", err)
	}
	<-closed
}
