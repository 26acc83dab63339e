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

// ErrServed says that another daemon serves the folder.
var ErrServed = errors.New("another daemon runs")

// handover is how long a daemon that is about to end has until the next one
// gives up.
const handover = 10 * time.Second

// Listen returns the daemon's listener in the folder dir: the socket that the
// service manager has passed on (sd_listen_fds(3)), or a new one. lock is
// held for as long as the daemon lives; closing it takes the socket away. The
// error is ErrServed where another daemon lives.
func Listen(ctx context.Context, dir string) (listener *net.UnixListener, lock io.Closer, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make daemon folder: %w", err)
	}
	inherited := activated()
	if !inherited && answers(ctx, dir) {
		return nil, nil, fmt.Errorf("%w (its socket is %s)", ErrServed, SocketPath(dir))
	}
	limited, cancel := context.WithTimeout(ctx, handover)
	defer cancel()
	unlock, err := flock.LockFile(limited, filepath.Join(dir, lockName))
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, nil, fmt.Errorf("%w (it holds %s)", ErrServed, filepath.Join(dir, lockName))
	}
	if err != nil {
		return nil, nil, fmt.Errorf("lock daemon folder: %w", err)
	}
	if inherited {
		listener, err = inherit()
	} else {
		listener, err = bind(dir)
	}
	if err != nil {
		unlock()
		return nil, nil, err
	}
	return listener, &holder{dir, inherited, unlock}, nil
}

// Served reports whether a daemon lives that serves the folder dir. Nothing is
// asked of it: where the service manager listens, a connection would start one.
func Served(dir string) (bool, error) {
	f, err := os.Open(filepath.Join(dir, lockName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for a daemon: %w", err)
	}
	defer f.Close() // which lets a daemon that begins in this moment try again
	locked, err := flock.TryLock(f)
	return !locked, err
}

// A holder is the right to be the daemon of a folder.
type holder struct {
	dir       string
	inherited bool // the socket is the service manager's
	unlock    func()
}

// Close takes the socket away while the next daemon still waits for the lock:
// it must not be the next one's.
func (h *holder) Close() error {
	defer h.unlock()
	if h.inherited {
		return nil
	}
	if err := os.Remove(SocketPath(h.dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove daemon socket: %w", err)
	}
	return nil
}

// answers reports whether somebody listens on the socket in dir.
func answers(ctx context.Context, dir string) bool {
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

// bind makes the socket, in the place of one that a dead daemon left.
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
	listener.SetUnlinkOnClose(false) // the holder does
	// Until then the folder, which only its owner may enter, guards it.
	if err := os.Chmod(SocketPath(dir), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protect daemon socket: %w", err), listener.Close())
	}
	return listener, nil
}

// firstFD is the first descriptor that a service manager passes on,
// SD_LISTEN_FDS_START of sd-daemon.h.
const firstFD = 3

// activated reports whether a service manager has passed a socket on to this
// process. The variables of another process, which were inherited, say no.
func activated() bool {
	pid, err := strconv.Atoi(os.Getenv("LISTEN_PID"))
	return err == nil && pid == os.Getpid() && os.Getenv("LISTEN_FDS") != ""
}

func inherit() (*net.UnixListener, error) {
	if n := os.Getenv("LISTEN_FDS"); n != "1" {
		return nil, fmt.Errorf("take over socket: the service manager has passed %s on, want 1", n)
	}
	unix.CloseOnExec(firstFD)
	f := os.NewFile(firstFD, "daemon socket")
	defer f.Close() // FileListener has its own
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("take over socket: %w", err)
	}
	listener, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(errors.New("take over socket: it is no Unix socket"), l.Close())
	}
	listener.SetUnlinkOnClose(false)
	return listener, nil
}
