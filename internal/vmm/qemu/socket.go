package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/banger-vm/banger/internal/base/unixsocket"
)

// The names of the sockets in a machine's folder.
const (
	qmpSocket     = "qmp.sock"
	consoleSocket = "console.sock"
	agentSocket   = "agent.sock"
)

// Sockets returns the names of the sockets in a machine's folder.
func Sockets() []string { return []string{qmpSocket, consoleSocket, agentSocket} }

// listen creates the socket name in dir. It replaces a socket without a
// listener.
func listen(ctx context.Context, dir, name string) (*os.File, error) {
	file, err := unixsocket.In(dir, name, func(path string) (*os.File, error) {
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "unix", path)
		if errors.Is(err, syscall.EADDRINUSE) {
			var d net.Dialer
			conn, dialErr := d.DialContext(ctx, "unix", path)
			if dialErr == nil {
				conn.Close()
				return nil, err
			}
			if !errors.Is(dialErr, syscall.ECONNREFUSED) {
				return nil, dialErr
			}
			if err := os.Remove(path); err != nil {
				return nil, err
			}
			l, err = lc.Listen(ctx, "unix", path)
		}
		if err != nil {
			return nil, err
		}
		unixListener, ok := l.(*net.UnixListener)
		if !ok {
			return nil, errors.New("not a Unix socket")
		}
		unixListener.SetUnlinkOnClose(false) // QEMU keeps listening
		defer l.Close()
		return unixListener.File()
	})
	if err != nil {
		return nil, fmt.Errorf("listen on %s in %s: %w", name, dir, socketError(err))
	}
	return file, nil
}

// dial connects to the socket name in dir.
func dial(ctx context.Context, dir, name string) (net.Conn, error) {
	conn, err := unixsocket.In(dir, name, func(path string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	})
	if err != nil {
		return nil, fmt.Errorf("connect with %s in %s: %w", name, dir, socketError(err))
	}
	return conn, nil
}

// socketError removes net's wrapping, which contains the path that
// unixsocket.In has chosen.
func socketError(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return op.Err
	}
	return err
}
