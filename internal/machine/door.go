package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/banger-vm/banger/internal/base/unixsocket"
	"github.com/banger-vm/banger/internal/guest/client"
	"github.com/banger-vm/banger/internal/guest/link"
)

// Files in a running machine's runtime folder by which other processes of the
// user reach its agent.
const (
	doorFile = "ssh.sock"    // each connection is one to the agent's SSH server
	keyFile  = "key"         // the private key that may log in, as ssh(1) reads it
	hostFile = "known_hosts" // the agent's public key, for the host name of hostAlias
)

// hostAlias is the name that known_hosts has for every machine: each file
// has one machine.
const hostAlias = "machine"

// maxVisitors bounds the connections through one door.
const maxVisitors = 64

// A door lets other processes of the user talk to the agent through the
// owner, since the machine's port takes one connection.
type door struct {
	listener *net.UnixListener
	session  *link.Session
	visitors sync.WaitGroup
	places   chan struct{}
}

func openDoor(dir string, session *link.Session, keys client.Keys) (*door, error) {
	known := hostAlias + " " + keys.HostPublic
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, keyFile), []byte(keys.ClientPrivate), 0o600),
		os.WriteFile(filepath.Join(dir, hostFile), []byte(known), 0o600),
	); err != nil {
		return nil, fmt.Errorf("write machine keys: %w", err)
	}
	listener, err := unixsocket.In(dir, doorFile, func(path string) (*net.UnixListener, error) {
		// A machine that is booted again by the same supervisor has an old one.
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		return net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	})
	if err != nil {
		return nil, fmt.Errorf("listen for connections to the machine: %w", err)
	}
	listener.SetUnlinkOnClose(false) // the folder goes as a whole
	d := &door{listener: listener, session: session, places: make(chan struct{}, maxVisitors)}
	d.visitors.Go(d.serve)
	return d, nil
}

func (d *door) serve() {
	for {
		conn, err := d.listener.AcceptUnix()
		if err != nil {
			return // closed
		}
		select {
		case d.places <- struct{}{}:
			d.visitors.Go(func() {
				defer func() { <-d.places }()
				d.lead(conn)
			})
		default:
			conn.Close() //nolint:errcheck // refused: there are too many
		}
	}
}

// lead carries bytes between a visitor and the agent until both are done.
func (d *door) lead(visitor *net.UnixConn) {
	defer visitor.Close() //nolint:errcheck // what came is passed on already
	stream, err := d.session.Open(context.Background())
	if err != nil {
		return
	}
	defer stream.Close()
	ended := make(chan struct{})
	defer close(ended)
	d.visitors.Go(func() {
		select {
		case <-d.session.Done():
			visitor.Close() //nolint:errcheck // a visitor who reads no more must not hold the end up
		case <-ended:
		}
	})
	join(visitor, stream)
}

// join copies both ways; the end of one direction ends the other, since SSH
// says itself when a side is done.
func join(a, b io.ReadWriteCloser) {
	var both sync.WaitGroup
	both.Go(func() {
		io.Copy(a, b) //nolint:errcheck // a broken connection ends both, and SSH tells its user
		a.Close()
	})
	io.Copy(b, a) //nolint:errcheck // likewise
	b.Close()
	both.Wait()
}

func (d *door) close() error {
	err := d.listener.Close()
	d.session.Close()
	d.visitors.Wait()
	return err
}

// Dial connects to the agent of a machine that another process owns.
func (s *Store) Dial(ctx context.Context, rec *Record) (net.Conn, error) {
	conn, err := unixsocket.In(s.runtimeDir(rec.ID), doorFile, func(path string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("machine %s: %w", rec.Config.Name, ErrNotRunning)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to machine %s: %w", rec.Config.Name, err)
	}
	return conn, nil
}

// ErrNotRunning says that a machine does not run.
var ErrNotRunning = errors.New("machine is not running")

// Access is what ssh(1) needs to log in to a machine.
type Access struct {
	Key        string // file with the private key
	KnownHosts string // file with the machine's key
	HostAlias  string // the name it has there
}

// Access returns the files for logging in to a running machine.
func (s *Store) Access(rec *Record) Access {
	dir := s.runtimeDir(rec.ID)
	return Access{filepath.Join(dir, keyFile), filepath.Join(dir, hostFile), hostAlias}
}
