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

// What one host may ask for at a time.
const (
	maxConnections = 64
	maxChannels    = 64 // of one connection
	maxAuthTries   = 20 // a client offers all its keys in turn
	// handshakeWait bounds a connection that has not logged in. A machine
	// under emulation is slow.
	handshakeWait = 2 * time.Minute
)

// serverConfig makes the SSH server's rules: the keys of cfg and no other way
// in.
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

// ciphers offers AES-GCM unless the processor is QEMU's emulation, whose AES
// instructions make 9 MB/s where ChaCha20-Poly1305 makes 40. On hardware it is
// 900 against 150. To measure it would take long: without a time stamp counter
// the clock has steps of 4 ms.
func ciphers(cpuinfo string) []string {
	content, err := os.ReadFile(cpuinfo)
	if err == nil && bytes.Contains(content, []byte(": QEMU TCG CPU")) {
		return []string{ssh.CipherChaCha20Poly1305}
	}
	return []string{ssh.CipherAES128GCM, ssh.CipherChaCha20Poly1305, ssh.CipherAES256GCM}
}

// serveConn serves one SSH connection until it ends, and the channels that it
// had with it.
func (a *agent) serveConn(ctx context.Context, stream net.Conn) {
	defer stream.Close()
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	defer stop()
	stream.SetDeadline(time.Now().Add(handshakeWait))
	conn, channels, requests, err := ssh.NewServerConn(stream, a.server)
	if err != nil {
		return // the client knows
	}
	stream.SetDeadline(time.Time{})
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { a.serveGlobal(ctx, requests) })
	places := make(chan struct{}, maxChannels)
	for ch := range channels {
		serve := a.channelServer(ch, conn.User())
		if serve == nil {
			ch.Reject(ssh.UnknownChannelType, "no such channel type")
			continue
		}
		select {
		case places <- struct{}{}:
			all.Go(func() {
				defer func() { <-places }()
				serve(ctx, ch)
			})
		default:
			ch.Reject(ssh.ResourceShortage, fmt.Sprintf("more than %d channels", maxChannels))
		}
	}
}

func (a *agent) channelServer(ch ssh.NewChannel, user string) func(context.Context, ssh.NewChannel) {
	switch ch.ChannelType() {
	case "session":
		return func(ctx context.Context, ch ssh.NewChannel) { a.serveShell(ctx, ch, user) }
	case "direct-tcpip":
		return forwardTCP
	case "direct-streamlocal@openssh.com":
		return a.forwardUnix
	}
	return nil
}
