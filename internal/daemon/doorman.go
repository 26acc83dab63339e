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
)

// refusalTime is how long a client has to hear that there are too many.
const refusalTime = time.Second

// A doorman lets in connections of the user alone, and of root, and no more
// than there are places for.
type doorman struct {
	*net.UnixListener
	log      *slog.Logger
	places   chan struct{}
	refusing chan struct{} // likewise for those that are told so
	refusals sync.WaitGroup
}

func newDoorman(l *net.UnixListener, places int, log *slog.Logger) *doorman {
	const refusing = 16
	return &doorman{UnixListener: l, log: log, places: make(chan struct{}, places), refusing: make(chan struct{}, refusing)}
}

// Accept implements net.Listener.
func (d *doorman) Accept() (net.Conn, error) {
	for {
		conn, err := d.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if err := checkPeer(conn); err != nil {
			d.log.Warn("connection refused", "error", err)
			conn.Close() //nolint:errcheck // nothing was said
			continue
		}
		select {
		case d.places <- struct{}{}:
			return &visitor{UnixConn: conn, leave: sync.OnceFunc(func() { <-d.places })}, nil
		default:
			d.refuse(conn)
		}
	}
}

// Close implements net.Listener.
func (d *doorman) Close() error {
	err := d.UnixListener.Close()
	d.refusals.Wait()
	return err
}

// checkPeer refuses processes of other users: SO_PEERCRED of unix(7).
func checkPeer(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("find out who connects: %w", err)
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
		return fmt.Errorf("find out who connects: %w", err)
	}
	return admit(cred, os.Geteuid())
}

func admit(peer *unix.Ucred, own int) error {
	if peer.Uid == 0 || int(peer.Uid) == own {
		return nil
	}
	return fmt.Errorf("user %d (process %d) may not use the machines of user %d", peer.Uid, peer.Pid, own)
}

// refuse tells a client that there are too many, unless there are too many of
// those too.
func (d *doorman) refuse(conn *net.UnixConn) {
	select {
	case d.refusing <- struct{}{}:
	default:
		conn.Close() //nolint:errcheck // refused
		return
	}
	d.log.Warn("connection refused", "error", "too many are open", "places", cap(d.places))
	d.refusals.Go(func() {
		defer func() { <-d.refusing }()
		defer conn.Close()                            //nolint:errcheck // refused
		conn.SetDeadline(time.Now().Add(refusalTime)) //nolint:errcheck // it ends at once then
		tooMany(conn, cap(d.places))
	})
}

// tooMany reads a request, since a client that is still writing does not
// listen, and answers it.
func tooMany(conn net.Conn, places int) {
	req, err := http.ReadRequest(bufio.NewReader(io.LimitReader(conn, maxHeader+maxBody)))
	if err != nil {
		return
	}
	req.Body.Close()
	e := &api.Error{Code: api.CodeTooMany, Message: fmt.Sprintf("the daemon serves %d connections already", places)}
	body, err := json.Marshal(e)
	if err != nil {
		return
	}
	fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n%s: %s\r\n\r\n%s",
		e.Code.Status(), http.StatusText(e.Code.Status()), len(body), api.HeaderAPI, strconv.Itoa(api.Version), body)
}

// A visitor is a connection that has a place.
type visitor struct {
	*net.UnixConn
	leave func()
}

// Close implements net.Conn.
func (v *visitor) Close() error {
	defer v.leave()
	return v.UnixConn.Close()
}
