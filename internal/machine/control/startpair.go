package control

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// StartPair returns the two ends of the connection between a new supervisor
// and the process that starts it: an open connection for the starter, and a
// file that the supervisor inherits as StartFD.
func StartPair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	mine, theirs := os.NewFile(uintptr(fds[0]), "start"), os.NewFile(uintptr(fds[1]), "start")
	defer mine.Close() // FileConn has duplicated it
	conn, err := net.FileConn(mine)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("make socket pair: %w", err), theirs.Close())
	}
	return conn, theirs, nil
}
