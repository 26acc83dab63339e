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
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/base/descriptor"
	"github.com/banger-vm/banger/internal/base/flock"
	"github.com/banger-vm/banger/internal/base/poll"
	"github.com/banger-vm/banger/internal/base/unixsocket"
)

const (
	socketName = "daemon.sock" // in the daemon's runtime folder
	lockName   = "daemon.lock" // in the data folder
)

// SocketPath returns the path of the socket in a daemon's folder.
func SocketPath(dir string) string { return filepath.Join(dir, socketName) }

// ErrServed means that another daemon serves the same data folder.
var ErrServed = errors.New("another daemon runs")

// handoverTime is how long a new daemon waits for the lock of one that shuts down.
const handoverTime = 10 * time.Second

// listen returns the daemon's listener in the runtime folder dir: the socket that the
// service manager has passed to this process (sd_listen_fds(3)), or a new one. It
// locks the folder data and writes the path of the socket into the lock's file, where
// Served finds it. The caller holds lock as long as the daemon serves, and then closes
// it, which removes a new socket. The error is ErrServed if another daemon serves data.
func listen(ctx context.Context, dir, data string) (listener *net.UnixListener, lock io.Closer, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make daemon folder: %w", err)
	}
	inherited := isActivated()
	if !inherited && isServed(ctx, dir) {
		return nil, nil, fmt.Errorf("%w (its socket is %s)", ErrServed, SocketPath(dir))
	}
	l := &folderLock{dir: dir, inherited: inherited}
	if l.file, err = lockData(ctx, data); err != nil {
		return nil, nil, err
	}
	socket := SocketPath(dir)
	if inherited {
		if listener, err = inheritListener(); err == nil {
			socket = listener.Addr().String()
		}
	} else {
		listener, err = bind(dir)
	}
	if err != nil {
		return nil, nil, errors.Join(err, l.file.Close())
	}
	if err := writeSocket(l.file, socket); err != nil {
		return nil, nil, errors.Join(err, listener.Close(), l.Close())
	}
	return listener, l, nil
}

// lockData returns the lock's file in the data folder, locked. The lock belongs to the
// data folder, since the runtime folder depends on the environment: cron and su give
// another one than a login.
func lockData(ctx context.Context, data string) (*os.File, error) {
	path := filepath.Join(data, lockName)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data folder: %w", err)
	}
	limited, cancel := context.WithTimeout(ctx, handoverTime)
	defer cancel()
	err = poll.Until(limited, lockInterval, func() (bool, error) { return flock.TryLock(f) })
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		err = fmt.Errorf("%w (it holds %s, and its socket is %s)", ErrServed, path, readSocket(f))
	} else if err != nil {
		err = fmt.Errorf("lock data folder: %w", err)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

const lockInterval = 5 * time.Millisecond

// maxSocketPath is the most bytes of a socket's path that are read, PATH_MAX.
const maxSocketPath = 4096

// writeSocket writes the path of the socket into the lock's file.
func writeSocket(lock *os.File, socket string) error {
	_, err := lock.WriteAt([]byte(socket+"\n"), 0)
	if err == nil {
		err = lock.Truncate(int64(len(socket) + 1))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", lock.Name(), err)
	}
	return nil
}

// readSocket returns the path that writeSocket has written, or "".
func readSocket(lock *os.File) string {
	b := make([]byte, maxSocketPath)
	n, _ := lock.ReadAt(b, 0) // at the end of the file n counts, and not the error
	path, _, whole := strings.Cut(string(b[:n]), "\n")
	if !whole || !filepath.IsAbs(path) {
		return ""
	}
	return path
}

// Served reports whether a daemon serves the data folder, and returns the path of its
// socket, or "" if the daemon has no socket yet. Served tries the daemon's lock and makes
// no connection: if the service manager listens on the socket, a connection would start
// a daemon.
func Served(data string) (socket string, served bool, err error) {
	f, err := os.Open(filepath.Join(data, lockName))
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("look for a daemon: %w", err)
	}
	defer f.Close() // a daemon that starts at this moment tries again for handoverTime
	locked, err := flock.TryLock(f)
	if err != nil || locked {
		return "", false, err
	}
	return readSocket(f), true, nil
}

// A folderLock gives a process the right to be the daemon of a data folder.
type folderLock struct {
	dir       string   // the runtime folder
	inherited bool     // the socket belongs to the service manager
	file      *os.File // in the data folder, locked
}

// Close removes the socket and unlocks the folder. It unlocks last: otherwise it
// could remove the socket of the next daemon.
func (l *folderLock) Close() error {
	defer l.file.Close()
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
