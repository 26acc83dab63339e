package agent

import (
	"context"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// dialTimeout is the time limit for a connection that the agent opens for a
// client.
const dialTimeout = 30 * time.Second

// forwardTCP serves direct-tcpip (RFC 4254, section 7.2).
func forwardTCP(ctx context.Context, ch ssh.NewChannel) {
	var to struct {
		Host       string
		Port       uint32
		Origin     string
		OriginPort uint32
	}
	if err := ssh.Unmarshal(ch.ExtraData(), &to); err != nil || to.Port > 1<<16-1 {
		ch.Reject(ssh.ConnectionFailed, "bad address")
		return
	}
	forward(ctx, ch, "tcp", net.JoinHostPort(to.Host, strconv.Itoa(int(to.Port))))
}

// forwardUnix serves direct-streamlocal@openssh.com (OpenSSH's PROTOCOL,
// section 2.4).
func (a *agent) forwardUnix(ctx context.Context, ch ssh.NewChannel) {
	var to struct {
		Path     string
		Reserved string
		Number   uint32
	}
	err := ssh.Unmarshal(ch.ExtraData(), &to)
	if err == nil {
		err = a.root.wait(ctx, nil)
	}
	if err != nil {
		ch.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	forward(ctx, ch, "unix", to.Path)
}

// duplex is a connection whose directions can be closed separately.
type duplex interface {
	io.ReadWriteCloser
	CloseWrite() error
}

func forward(ctx context.Context, ch ssh.NewChannel, network, address string) {
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		ch.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	defer conn.Close()
	there, ok := conn.(duplex)
	if !ok {
		ch.Reject(ssh.ConnectionFailed, "not a stream")
		return
	}
	here, requests, err := ch.Accept()
	if err != nil {
		return
	}
	connect(ctx, here, requests, there)
}

// connect copies both directions between a channel and a connection until they
// have ended, and closes both.
func connect(ctx context.Context, here ssh.Channel, requests <-chan *ssh.Request, there duplex) {
	var requested, copied sync.WaitGroup
	requested.Go(func() { ssh.DiscardRequests(requests) })
	stop := context.AfterFunc(ctx, func() { there.Close() })
	defer stop()
	copied.Go(func() { copyHalf(there, here) })
	copyHalf(here, there)
	copied.Wait()
	here.Close()
	requested.Wait()
}

// copyHalf copies one direction and then closes it. If the receiver fails,
// copyHalf closes both ends, so that the sender gets an error.
func copyHalf(to, from duplex) {
	_, err := io.Copy(to, from)
	if err != nil {
		to.Close()
		from.Close()
		return
	}
	// The write end is broken if this fails, and the other direction fails too.
	_ = to.CloseWrite()
}
