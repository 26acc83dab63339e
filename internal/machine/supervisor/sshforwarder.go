package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/banger-vm/banger/internal/base/unixsocket"
	"github.com/banger-vm/banger/internal/guest/client"
	"github.com/banger-vm/banger/internal/guest/link"
	"github.com/banger-vm/banger/internal/machine/control"
)

// maxSSHConns bounds the connections to the SSH socket of a machine.
const maxSSHConns = 64

// An sshForwarder connects other processes of the user to the agent's SSH
// server. They cannot connect themselves, because the machine's serial port
// takes one connection.
type sshForwarder struct {
	listener *net.UnixListener
	session  *link.Session
	serving  sync.WaitGroup
}

// forwardSSH writes the keys of the agent to the folder dir and serves the SSH
// socket there.
func forwardSSH(dir string, session *link.Session, keys client.Keys) (*sshForwarder, error) {
	known := control.HostAlias + " " + keys.HostPublic
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, control.KeyFile), []byte(keys.ClientPrivate), 0o600),
		os.WriteFile(filepath.Join(dir, control.KnownHostsFile), []byte(known), 0o600),
	); err != nil {
		return nil, fmt.Errorf("write machine keys: %w", err)
	}
	listener, err := unixsocket.In(dir, control.SSHFile, func(path string) (*net.UnixListener, error) {
		// The socket of the last boot by the same supervisor may be there.
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		return net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	})
	if err != nil {
		return nil, fmt.Errorf("listen for connections to the machine: %w", err)
	}
	listener.SetUnlinkOnClose(false) // the folder is removed as a whole
	f := &sshForwarder{listener: listener, session: session}
	f.serving.Go(func() {
		_ = unixsocket.Serve(unixsocket.Limit(listener, maxSSHConns, nil), f.forward) // close ends it
	})
	return f, nil
}

// forward copies bytes between a client and the agent until both are done.
func (f *sshForwarder) forward(conn net.Conn) {
	stream, err := f.session.Open(context.Background())
	if err != nil {
		return
	}
	ended := make(chan struct{})
	f.serving.Go(func() {
		select {
		case <-f.session.Done():
			conn.Close() // a client that does not read must not delay the end of the machine
		case <-ended:
		}
	})
	unixsocket.Join(conn, stream)
	close(ended)
}

// close ends all connections and waits for them.
func (f *sshForwarder) close() error {
	err := f.listener.Close()
	f.session.Close()
	f.serving.Wait()
	return err
}
