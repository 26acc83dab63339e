package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// The sockets in a machine's folder.
const (
	qmpSocket     = "qmp.sock"
	consoleSocket = "console.sock"
	agentSocket   = "agent.sock"
)

// Sockets are the names of the sockets that a machine has in its folder.
func Sockets() []string { return []string{qmpSocket, consoleSocket, agentSocket} }

// inFolder calls use with a path of name in dir that fits into a socket
// address, whose limit of 108 bytes (sun_path of unix(7)) dir may exceed.
func inFolder(dir, name string, use func(path string) error) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd) //nolint:errcheck // it was opened to be named only
	return use("/proc/self/fd/" + strconv.Itoa(fd) + "/" + name)
}

// listen makes the socket name in dir. A dead one, which nobody listens to,
// is replaced.
func listen(ctx context.Context, dir, name string) (*os.File, error) {
	var file *os.File
	err := inFolder(dir, name, func(path string) error {
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "unix", path)
		if errors.Is(err, syscall.EADDRINUSE) {
			var d net.Dialer
			conn, dialErr := d.DialContext(ctx, "unix", path)
			if dialErr == nil {
				hangUp(conn)
				return err
			}
			if !errors.Is(dialErr, syscall.ECONNREFUSED) {
				return dialErr
			}
			if err := os.Remove(path); err != nil {
				return err
			}
			l, err = lc.Listen(ctx, "unix", path)
		}
		if err != nil {
			return err
		}
		unixListener, ok := l.(*net.UnixListener)
		if !ok {
			return errors.New("not a Unix socket")
		}
		unixListener.SetUnlinkOnClose(false) // QEMU goes on listening
		defer hangUp(l)
		file, err = unixListener.File()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen on %s in %s: %w", name, dir, socketError(err))
	}
	return file, nil
}

// dial connects with the socket name in dir.
func dial(ctx context.Context, dir, name string) (net.Conn, error) {
	var conn net.Conn
	err := inFolder(dir, name, func(path string) (err error) {
		var d net.Dialer
		conn, err = d.DialContext(ctx, "unix", path)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("connect with %s in %s: %w", name, dir, socketError(err))
	}
	return conn, nil
}

// hangUp closes a socket. What was written to it has been handed over or is
// of no use to anybody, so that its error says nothing.
func hangUp(c io.Closer) { c.Close() }

// socketError drops net's wrapping, which names the path of inFolder.
func socketError(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return op.Err
	}
	return err
}
