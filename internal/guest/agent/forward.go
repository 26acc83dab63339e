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

// dialWait bounds how long a connection for a client may take to be made.
const dialWait = 30 * time.Second

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

// halves is a connection one direction of which can end alone.
type halves interface {
	io.ReadWriteCloser
	CloseWrite() error
}

func forward(ctx context.Context, ch ssh.NewChannel, network, address string) {
	dialer := net.Dialer{Timeout: dialWait}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		ch.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	defer conn.Close()
	there, ok := conn.(halves)
	if !ok {
		ch.Reject(ssh.ConnectionFailed, "not a stream")
		return
	}
	here, requests, err := ch.Accept()
	if err != nil {
		return
	}
	var requested, copied sync.WaitGroup
	requested.Go(func() { ssh.DiscardRequests(requests) })
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	copied.Go(func() { passOn(there, here) })
	passOn(here, there)
	copied.Wait()
	here.Close()
	requested.Wait()
}

// passOn copies one direction and ends it. When the receiver is gone, the
// sender learns it by the end of both.
func passOn(to, from halves) {
	_, err := io.Copy(to, from)
	if err != nil {
		to.Close()   // it is broken
		from.Close() // nobody reads it any more
		return
	}
	to.CloseWrite() //nolint:errcheck // the other direction shows it
}
