package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// The limits of the listeners of one connection.
const (
	maxListeners   = 32
	firstFreePort  = 1024 // users other than root may not listen below it
	maxPort        = 1<<16 - 1
	maxPassedConns = maxChannels // connections to all listeners at a time
)

// A reverse listens in the machine for one client, and opens a channel to the
// client for each connection: the forwards of ssh -R, and the user's SSH agent
// of ssh -A.
type reverse struct {
	conn    *ssh.ServerConn
	slots   chan struct{} // an element for each open channel
	serving sync.WaitGroup

	mu        sync.Mutex
	listeners map[string][]net.Listener // by the kind and the address of the request
}

func newReverse(conn *ssh.ServerConn) *reverse {
	return &reverse{conn: conn, slots: make(chan struct{}, maxPassedConns), listeners: map[string][]net.Listener{}}
}

// Global requests that start or end a listener.
const (
	requestTCP        = "tcpip-forward"
	requestCancelTCP  = "cancel-tcpip-forward"
	requestUnix       = "streamlocal-forward@openssh.com"
	requestCancelUnix = "cancel-streamlocal-forward@openssh.com"
)

func isForward(req *ssh.Request) bool {
	return slices.Contains([]string{requestTCP, requestCancelTCP, requestUnix, requestCancelUnix}, req.Type)
}

// handle carries out a request for which isForward returns true.
func (v *reverse) handle(ctx context.Context, req *ssh.Request) (answer []byte, err error) {
	var tcp tcpAddress
	var path stringPayload
	switch req.Type {
	case requestTCP:
		return v.forwardTCP(ctx, req.Payload)
	case requestUnix:
		return nil, v.forwardUnix(ctx, req.Payload)
	case requestCancelTCP:
		if err := ssh.Unmarshal(req.Payload, &tcp); err != nil {
			return nil, err
		}
		return nil, v.cancel(tcp.key())
	}
	if err := ssh.Unmarshal(req.Payload, &path); err != nil {
		return nil, err
	}
	return nil, v.cancel("unix " + path.Text)
}

// A tcpAddress is the payload of tcpip-forward (RFC 4254, section 7.1).
type tcpAddress struct {
	Host string
	Port uint32
}

func (a tcpAddress) key() string {
	return "tcp " + net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port)))
}

// hosts returns the addresses to listen on. The first one must work.
func (a tcpAddress) hosts() []string {
	switch a.Host {
	case "localhost":
		return []string{"127.0.0.1", "::1"}
	case "*":
		return []string{""}
	}
	return []string{a.Host}
}

// forwardTCP returns the port if the client leaves the choice to the machine.
func (v *reverse) forwardTCP(ctx context.Context, payload []byte) ([]byte, error) {
	var at tcpAddress
	if err := ssh.Unmarshal(payload, &at); err != nil || at.Port > maxPort {
		return nil, errors.New("listen: bad address")
	}
	if at.Port != 0 && at.Port < firstFreePort {
		acc, err := etc().find(v.conn.User())
		if err != nil {
			return nil, err
		}
		if acc.uid != 0 {
			return nil, fmt.Errorf("listen on port %d: only root may listen below %d", at.Port, firstFreePort)
		}
	}
	anyPort := at.Port == 0
	var listeners []net.Listener
	for _, host := range at.hosts() {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(at.Port))))
		if err != nil && len(listeners) > 0 {
			break // a machine may have no IPv6
		}
		if err != nil {
			return nil, err
		}
		if bound, ok := l.Addr().(*net.TCPAddr); ok {
			at.Port = uint32(bound.Port)
		}
		listeners = append(listeners, l)
	}
	if err := v.add(at.key(), listeners); err != nil {
		return nil, err
	}
	for _, l := range listeners {
		v.serve(ctx, l, "forwarded-tcpip", func(from net.Addr) []byte { return at.channelData(from) })
	}
	if anyPort {
		return ssh.Marshal(struct{ Port uint32 }{at.Port}), nil
	}
	return nil, nil
}

// channelData returns the data of a forwarded-tcpip channel (RFC 4254, section
// 7.2). The client compares the address with that of its request.
func (a tcpAddress) channelData(from net.Addr) []byte {
	data := struct {
		Host       string
		Port       uint32
		Origin     string
		OriginPort uint32
	}{Host: a.Host, Port: a.Port}
	if tcp, ok := from.(*net.TCPAddr); ok {
		data.Origin, data.OriginPort = tcp.IP.String(), uint32(tcp.Port)
	}
	return ssh.Marshal(data)
}

// forwardUnix serves streamlocal-forward@openssh.com (OpenSSH's PROTOCOL,
// section 2.4). A user other than root may listen only in folders of their own.
func (v *reverse) forwardUnix(ctx context.Context, payload []byte) error {
	var at stringPayload
	if err := ssh.Unmarshal(payload, &at); err != nil || !filepath.IsAbs(at.Text) {
		return errors.New("listen: bad path")
	}
	acc, err := etc().find(v.conn.User())
	if err != nil {
		return err
	}
	if err := checkOwner(filepath.Dir(at.Text), acc); err != nil {
		return fmt.Errorf("listen on %s: %w", at.Text, err)
	}
	l, err := listenUnix(ctx, at.Text, acc)
	if err != nil {
		return err
	}
	if err := v.add("unix "+at.Text, []net.Listener{l}); err != nil {
		return err
	}
	v.serve(ctx, l, "forwarded-streamlocal@openssh.com", func(net.Addr) []byte {
		return ssh.Marshal(struct{ Path, Reserved string }{Path: at.Text})
	})
	return nil
}

// listenUnix listens on a socket that belongs to a user.
func listenUnix(ctx context.Context, path string, acc *account) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	const mode = 0o600
	if err := errors.Join(os.Chmod(path, mode), os.Lchown(path, int(acc.uid), int(acc.gid))); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// add takes over listeners, or closes them.
func (v *reverse) add(key string, listeners []net.Listener) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.listeners) < maxListeners {
		v.listeners[key] = append(v.listeners[key], listeners...)
		return nil
	}
	closeListeners(listeners)
	return fmt.Errorf("listen: more than %d listeners", maxListeners)
}

func closeListeners(listeners []net.Listener) {
	for _, l := range listeners {
		l.Close()
	}
}

func (v *reverse) cancel(key string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	listeners, ok := v.listeners[key]
	if !ok {
		return errors.New("cancel: no such listener")
	}
	closeListeners(listeners)
	delete(v.listeners, key)
	return nil
}

// close ends all listeners and waits for their connections, which end with the
// client's.
func (v *reverse) close() {
	v.mu.Lock()
	for _, listeners := range v.listeners {
		closeListeners(listeners)
	}
	v.mu.Unlock()
	v.serving.Wait()
}

// serve opens a channel to the client for each connection to a listener. A
// connection beyond the limit is closed.
func (v *reverse) serve(ctx context.Context, l net.Listener, kind string, data func(from net.Addr) []byte) {
	v.serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			select {
			case v.slots <- struct{}{}:
				v.serving.Go(func() {
					defer func() { <-v.slots }()
					v.pass(ctx, conn, kind, data(conn.RemoteAddr()))
				})
			default:
				conn.Close()
			}
		}
	})
}

// pass connects conn with a new channel to the client.
func (v *reverse) pass(ctx context.Context, conn net.Conn, kind string, data []byte) {
	defer conn.Close()
	there, ok := conn.(duplex)
	if !ok {
		return
	}
	here, requests, err := v.conn.OpenChannel(kind, data)
	if err != nil {
		return // the client refuses it, or is gone
	}
	connect(ctx, here, requests, there)
}

// agentSocket listens for the programs of a session that need the user's SSH
// agent. It returns the path of the socket, and a function that removes it.
func (v *reverse) agentSocket(ctx context.Context, acc *account) (path string, remove func(), err error) {
	dir, err := makeTemp()
	if err != nil {
		return "", nil, err
	}
	folder, err := os.OpenRoot(dir) // the user may rename the folder later
	if err != nil {
		return "", nil, errors.Join(err, os.Remove(dir))
	}
	const name = "agent"
	path = filepath.Join(dir, name)
	remove = func() {
		_ = v.cancel("agent " + path)
		_ = folder.Remove(name) // the listener has removed it, unless the folder has another name
		folder.Close()
		_ = os.Remove(dir) // the user may have put files there
	}
	l, err := listenUnix(ctx, path, acc)
	if err == nil {
		err = v.add("agent "+path, []net.Listener{l})
	}
	if err == nil {
		err = os.Chown(dir, int(acc.uid), int(acc.gid))
	}
	if err != nil {
		remove()
		return "", nil, err
	}
	v.serve(ctx, l, "auth-agent@openssh.com", func(net.Addr) []byte { return nil })
	return path, remove, nil
}

// makeTemp makes a folder for the socket of an SSH agent. An image may have no
// /tmp.
func makeTemp() (string, error) {
	for _, in := range []string{"/tmp", "/run"} {
		if dir, err := os.MkdirTemp(in, "ssh-"); err == nil {
			return dir, nil
		}
	}
	return os.MkdirTemp("/", ".ssh-agent-")
}

// checkOwner returns an error if a folder does not belong to the user, who is
// not root.
func checkOwner(dir string, acc *account) error {
	if acc.uid == 0 {
		return nil
	}
	var info unix.Stat_t
	if err := unix.Stat(dir, &info); err != nil {
		return &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	if info.Uid != acc.uid {
		return fmt.Errorf("the folder belongs to user %d", info.Uid)
	}
	return nil
}
