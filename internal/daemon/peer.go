package daemon

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/unixsocket"
)

// refusalTime bounds how long a refusal may take, so that a client which does not read
// it holds up nothing.
const refusalTime = time.Second

// listenPeers returns a listener that accepts connections only from the daemon's own
// user and from root, at most limit of them open at a time.
func listenPeers(l *net.UnixListener, limit int, log *slog.Logger) net.Listener {
	const refusals = 16
	peers := &peerListener{UnixListener: l, log: log, limit: limit, slots: make(chan struct{}, refusals)}
	return unixsocket.Limit(peers, limit, peers.refuse)
}

// A peerListener checks the user of each connection, and answers those beyond the limit.
type peerListener struct {
	*net.UnixListener
	log      *slog.Logger
	limit    int
	slots    chan struct{} // an element for each refusal under way
	refusals sync.WaitGroup
}

// AcceptUnix implements unixsocket.Acceptor.
func (l *peerListener) AcceptUnix() (*net.UnixConn, error) {
	for {
		conn, err := l.UnixListener.AcceptUnix()
		if err != nil {
			return nil, err
		}
		err = checkPeer(conn)
		if err == nil {
			return conn, nil
		}
		l.log.Warn("connection refused", "error", err)
		conn.Close()
	}
}

// Close implements net.Listener. It waits for the refusals under way.
func (l *peerListener) Close() error {
	err := l.UnixListener.Close()
	l.refusals.Wait()
	return err
}

// checkPeer returns an error if the process at the other end of conn may not use the
// daemon: SO_PEERCRED of unix(7).
func checkPeer(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("read the credentials of the peer: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err == nil {
		err = credErr
	}
	if err != nil {
		return fmt.Errorf("read the credentials of the peer: %w", err)
	}
	return admit(cred, os.Geteuid())
}

// admit returns an error unless peer is a process of root or of the user own.
func admit(peer *unix.Ucred, own int) error {
	if peer.Uid == 0 || int(peer.Uid) == own {
		return nil
	}
	return fmt.Errorf("user %d (process %d) may not use the machines of user %d", peer.Uid, peer.Pid, own)
}

// refuse answers a connection beyond the limit in a goroutine, and closes it. If too
// many refusals are under way, it closes the connection without an answer.
func (l *peerListener) refuse(conn *net.UnixConn) {
	select {
	case l.slots <- struct{}{}:
	default:
		conn.Close()
		return
	}
	l.log.Warn("connection refused", "error", "too many are open", "places", l.limit)
	l.refusals.Go(func() {
		defer func() { <-l.slots }()
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(refusalTime)); err == nil {
			answerTooMany(conn, l.limit)
		}
	})
}

// answerTooMany reads a request, since a client reads no answer while it writes, and
// answers it with the error api.CodeTooMany.
func answerTooMany(conn net.Conn, limit int) {
	req, err := http.ReadRequest(bufio.NewReader(io.LimitReader(conn, maxHeader+maxBody)))
	if err != nil {
		return
	}
	req.Body.Close()
	e := &api.Error{Code: api.CodeTooMany, Message: fmt.Sprintf("the daemon serves %d connections already", limit)}
	body, err := json.Marshal(e)
	if err != nil {
		return
	}
	fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n%s: %s\r\n\r\n%s",
		e.Code.Status(), http.StatusText(e.Code.Status()), len(body), api.HeaderAPI, strconv.Itoa(api.Version), body)
}
