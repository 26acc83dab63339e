package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/base/descriptor"
	"github.com/banger-vm/banger/internal/base/flock"
	"github.com/banger-vm/banger/internal/base/unixsocket"
)

// Files in the daemon's folder.
const (
	socketName = "daemon.sock"
	lockName   = "daemon.lock"
)

// SocketPath returns the path of the socket in a daemon's folder.
func SocketPath(dir string) string { return filepath.Join(dir, socketName) }

// ErrServed means that another daemon serves the same folder.
var ErrServed = errors.New("another daemon runs")

// handoverTime is how long a new daemon waits for the lock of one that shuts down.
const handoverTime = 10 * time.Second

// listen returns the daemon's listener in the folder dir: the socket that the
// service manager has passed to this process (sd_listen_fds(3)), or a new one. The
// caller holds lock as long as the daemon serves, and then closes it, which removes
// a new socket. The error is ErrServed if another daemon serves the folder.
func listen(ctx context.Context, dir string) (listener *net.UnixListener, lock io.Closer, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make daemon folder: %w", err)
	}
	inherited := isActivated()
	if !inherited && isServed(ctx, dir) {
		return nil, nil, fmt.Errorf("%w (its socket is %s)", ErrServed, SocketPath(dir))
	}
	limited, cancel := context.WithTimeout(ctx, handoverTime)
	defer cancel()
	unlock, err := flock.LockFile(limited, filepath.Join(dir, lockName))
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, nil, fmt.Errorf("%w (it holds %s)", ErrServed, filepath.Join(dir, lockName))
	}
	if err != nil {
		return nil, nil, fmt.Errorf("lock daemon folder: %w", err)
	}
	if inherited {
		listener, err = inheritListener()
	} else {
		listener, err = bind(dir)
	}
	if err != nil {
		unlock()
		return nil, nil, err
	}
	return listener, &folderLock{dir, inherited, unlock}, nil
}

// Served reports whether a daemon serves the folder dir. It tries the daemon's lock
// and makes no connection: if the service manager listens on the socket, a
// connection would start a daemon.
func Served(dir string) (bool, error) {
	f, err := os.Open(filepath.Join(dir, lockName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for a daemon: %w", err)
	}
	defer f.Close() // a daemon that starts at this moment tries again for handoverTime
	locked, err := flock.TryLock(f)
	return !locked, err
}

// A folderLock gives a process the right to be the daemon of a folder.
type folderLock struct {
	dir       string
	inherited bool // the socket belongs to the service manager
	unlock    func()
}

// Close removes the socket and unlocks the folder. It unlocks last: otherwise it
// could remove the socket of the next daemon.
func (l *folderLock) Close() error {
	defer l.unlock()
	if l.inherited {
		return nil
	}
	if err := os.Remove(SocketPath(l.dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove daemon socket: %w", err)
	}
	return nil
}

// isServed reports whether a process listens on the socket in dir.
func isServed(ctx context.Context, dir string) bool {
	conn, err := unixsocket.In(dir, socketName, func(path string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	})
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// bind makes the socket in dir. It replaces a socket that a killed daemon has left.
func bind(dir string) (*net.UnixListener, error) {
	if err := os.Remove(SocketPath(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove old daemon socket: %w", err)
	}
	listener, err := unixsocket.In(dir, socketName, func(path string) (*net.UnixListener, error) {
		return net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", SocketPath(dir), err)
	}
	listener.SetUnlinkOnClose(false) // folderLock removes it
	// Until the socket has its mode, the folder of mode 0700 protects it.
	if err := os.Chmod(SocketPath(dir), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protect daemon socket: %w", err), listener.Close())
	}
	return listener, nil
}

// firstFD is the first descriptor that a service manager passes to a process,
// SD_LISTEN_FDS_START of sd-daemon.h.
const firstFD = 3

// isActivated reports whether a service manager has passed a socket to this process.
// It ignores variables for another process, such as the parent, that this one has
// inherited.
func isActivated() bool {
	pid, err := strconv.Atoi(os.Getenv("LISTEN_PID"))
	return err == nil && pid == os.Getpid() && os.Getenv("LISTEN_FDS") != ""
}

// closeInherited closes the files that this process has inherited from the command
// that has started it. The daemon outlives that command, whose caller may wait for
// the end of a pipe or of a lock.
func closeInherited() error {
	if isActivated() {
		return descriptor.CloseInherited(firstFD)
	}
	return descriptor.CloseInherited()
}

// inheritListener returns the listener for the socket of the service manager.
func inheritListener() (*net.UnixListener, error) {
	if n := os.Getenv("LISTEN_FDS"); n != "1" {
		return nil, fmt.Errorf("take over socket: the service manager has passed %s on, want 1", n)
	}
	unix.CloseOnExec(firstFD)
	f := os.NewFile(firstFD, "daemon socket")
	defer f.Close() // FileListener duplicates the descriptor
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("take over socket: %w", err)
	}
	listener, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(errors.New("take over socket: it is not a Unix socket"), l.Close())
	}
	listener.SetUnlinkOnClose(false)
	return listener, nil
}
