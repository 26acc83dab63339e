package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/banger-vm/banger/internal/guest"
)

// The limits of a host.
const (
	maxConnections = 64
	maxChannels    = 64 // per connection
	maxAuthTries   = 20 // a client tries each of its keys
	// handshakeTimeout limits the time until a client has logged in. It is long
	// because a machine under emulation is slow.
	handshakeTimeout = 2 * time.Minute
)

// serverConfig returns a configuration that accepts only the client keys of
// cfg.
func serverConfig(cfg *guest.Config) (*ssh.ServerConfig, error) {
	host, err := ssh.ParsePrivateKey([]byte(cfg.HostKey))
	if err != nil {
		return nil, fmt.Errorf("read host key: %w", err)
	}
	var clients [][]byte
	for _, line := range cfg.ClientKeys {
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			return nil, fmt.Errorf("read client key: %w", err)
		}
		clients = append(clients, key.Marshal())
	}
	server := &ssh.ServerConfig{
		Config: ssh.Config{
			KeyExchanges: []string{ssh.KeyExchangeCurve25519, ssh.KeyExchangeMLKEM768X25519},
			Ciphers:      ciphers("/proc/cpuinfo"),
		},
		MaxAuthTries:  maxAuthTries,
		ServerVersion: "SSH-2.0-banger",
		PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			for _, known := range clients {
				if bytes.Equal(key.Marshal(), known) {
					return &ssh.Permissions{}, nil
				}
			}
			return nil, errors.New("unknown key")
		},
	}
	server.AddHostKey(host)
	return server, nil
}

// ciphers returns the ciphers in order of preference. AES-GCM comes first
// unless the processor is emulated by QEMU, whose AES instructions reach 9 MB/s
// and ChaCha20-Poly1305 40. On hardware it is 900 against 150. Measuring the
// speed at the start would take long, because without a time stamp counter the
// clock has steps of 4 ms.
func ciphers(cpuinfo string) []string {
	content, err := os.ReadFile(cpuinfo)
	if err == nil && bytes.Contains(content, []byte(": QEMU TCG CPU")) {
		return []string{ssh.CipherChaCha20Poly1305}
	}
	return []string{ssh.CipherAES128GCM, ssh.CipherChaCha20Poly1305, ssh.CipherAES256GCM}
}

// serveConn serves one SSH connection and its channels until it ends.
func (a *agent) serveConn(ctx context.Context, stream net.Conn) {
	defer stream.Close()
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	defer stop()
	stream.SetDeadline(time.Now().Add(handshakeTimeout))
	conn, channels, requests, err := ssh.NewServerConn(stream, a.server)
	if err != nil {
		return // the client has the reason
	}
	stream.SetDeadline(time.Time{})
	var tasks sync.WaitGroup
	defer tasks.Wait()
	listeners := newReverse(conn)
	defer listeners.close()
	// Forwarded connections end with the client's. A session ends its process by
	// itself, unless it is the main command.
	connected, disconnect := context.WithCancel(ctx)
	defer disconnect()
	tasks.Go(func() { a.serveGlobal(connected, requests, listeners) })
	slots := make(chan struct{}, maxChannels)
	for ch := range channels {
		serve := a.handlerFor(ctx, ch, listeners)
		if serve == nil {
			ch.Reject(ssh.UnknownChannelType, "no such channel type")
			continue
		}
		select {
		case slots <- struct{}{}:
			tasks.Go(func() {
				defer func() { <-slots }()
				serve(connected, ch)
			})
		default:
			ch.Reject(ssh.ResourceShortage, fmt.Sprintf("more than %d channels", maxChannels))
		}
	}
}

// handlerFor returns the function that serves a channel while its client is
// connected, or nil for a channel of an unknown type. ctx outlives the client.
func (a *agent) handlerFor(ctx context.Context, ch ssh.NewChannel, listeners *reverse) func(context.Context, ssh.NewChannel) {
	switch ch.ChannelType() {
	case "session":
		return func(_ context.Context, ch ssh.NewChannel) { a.serveSession(ctx, ch, listeners) }
	case "direct-tcpip":
		return forwardTCP
	case "direct-streamlocal@openssh.com":
		return a.forwardUnix
	}
	return nil
}
