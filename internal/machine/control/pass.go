package control

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A supervisor takes over the connection of a client of the daemon, so that an
// exec does not end with the daemon. The daemon sends the descriptor of the
// connection (SCM_RIGHTS of unix(7)) with one byte and the bytes that it has read
// from the client already.

// maxPassed bounds the bytes that are passed with a connection.
const maxPassed = 64 << 10

// rightsConn is a *net.UnixConn, or a type that embeds one.
type rightsConn interface {
	net.Conn
	WriteMsgUnix(b, oob []byte, addr *net.UnixAddr) (n, oobn int, err error)
	ReadMsgUnix(b, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error)
}

// PassClient passes client on to the supervisor at the other end of supervisor,
// with read, the bytes of the client that the caller has read. Afterwards the
// caller closes both connections.
func PassClient(supervisor, client net.Conn, read []byte) error {
	to, ok := supervisor.(rightsConn)
	from, isSystem := client.(syscall.Conn)
	if !ok || !isSystem || len(read) >= maxPassed {
		return errors.New("pass client: not a connection that can be passed")
	}
	raw, err := from.SyscallConn()
	if err != nil {
		return fmt.Errorf("pass client: %w", err)
	}
	var sendErr error
	err = raw.Control(func(fd uintptr) {
		_, _, sendErr = to.WriteMsgUnix(append([]byte{0}, read...), unix.UnixRights(int(fd)), nil)
	})
	if err := errors.Join(err, sendErr); err != nil {
		return fmt.Errorf("pass client: %w", err)
	}
	return nil
}

// TakeClient receives a client and the bytes read of PassClient.
func TakeClient(from net.Conn) (client net.Conn, read []byte, err error) {
	c, ok := from.(rightsConn)
	if !ok {
		return nil, nil, errors.New("take client: not a Unix socket")
	}
	data, rights := make([]byte, maxPassed), make([]byte, unix.CmsgSpace(4)) // bytes of one descriptor
	n, size, _, _, err := c.ReadMsgUnix(data, rights)
	if err != nil {
		return nil, nil, fmt.Errorf("take client: %w", err)
	}
	file, err := passedFile(rights[:size])
	if err != nil || n == 0 {
		return nil, nil, fmt.Errorf("take client: no descriptor has come: %w", err)
	}
	client, err = net.FileConn(file)
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, nil, fmt.Errorf("take client: %w", err)
	}
	return client, data[1:n], nil
}

// passedFile returns the file of a control message with one descriptor.
func passedFile(rights []byte) (*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, err
	}
	if len(messages) != 1 {
		return nil, fmt.Errorf("%d control messages", len(messages))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fds[0]), "client"), nil
}
