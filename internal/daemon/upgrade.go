package daemon

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/base/unixsocket"
	"github.com/banger-vm/banger/internal/machine"
)

// noStream is the answer to a request that needs a stream.
func noStream() error {
	return invalid("this request needs a stream: send Connection: Upgrade and Upgrade: %s", api.Protocol)
}

// wantsStream reports whether a request's connection is to become a stream.
func wantsStream(r *http.Request) bool {
	if r.ProtoMajor != 1 || !strings.EqualFold(r.Header.Get("Upgrade"), api.Protocol) {
		return false
	}
	for _, line := range r.Header.Values("Connection") {
		for token := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(token), "upgrade") {
				return true
			}
		}
	}
	return false
}

// hijack takes a request's connection and tells the client that what follows
// is a stream.
func hijack(w http.ResponseWriter) (net.Conn, *bufio.Reader, error) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, nil, fmt.Errorf("upgrade connection: %w", err)
	}
	if rec, ok := w.(*recorder); ok {
		rec.status = http.StatusSwitchingProtocols
	}
	fmt.Fprintf(rw.Writer, "HTTP/1.1 %d Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n%s: %s\r\n%s: %s\r\n\r\n",
		http.StatusSwitchingProtocols, api.Protocol, api.HeaderAPI, strconv.Itoa(api.Version),
		api.HeaderVersion, w.Header().Get(api.HeaderVersion))
	if err := rw.Flush(); err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("upgrade connection: %w", err)
	}
	return conn, rw.Reader, nil
}

func upgrade(w http.ResponseWriter) (*frames.Conn, error) {
	conn, r, err := hijack(w)
	if err != nil {
		return nil, err
	}
	return frames.NewBuffered(conn, r), nil
}

func (s *server) exec(w http.ResponseWriter, r *http.Request) error {
	return relay(s, w, r, s.Machines.Exec)
}

func (s *server) attach(w http.ResponseWriter, r *http.Request) error {
	return relay(s, w, r, s.Machines.Attach)
}

func (s *server) archive(w http.ResponseWriter, r *http.Request) error {
	return relay(s, w, r, s.Machines.Archive)
}

// relay asks a machine's supervisor for a stream and passes it on unread.
func relay[T any](s *server, w http.ResponseWriter, r *http.Request,
	ask func(ctx context.Context, id string, req T) (*frames.Conn, error),
) error {
	var req T
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if !wantsStream(r) {
		return noStream()
	}
	rec, err := s.find(r)
	if err != nil {
		return err
	}
	supervisor, err := ask(r.Context(), rec.ID, req)
	if err != nil {
		return err
	}
	client, err := upgrade(w)
	if err != nil {
		supervisor.Close()
		return err
	}
	defer s.closing(client, supervisor)()
	frames.Relay(client, supervisor)
	return nil
}

// agent makes the connection one to the SSH server of a machine's agent.
func (s *server) agent(w http.ResponseWriter, r *http.Request) error {
	if err := decode(w, r, &struct{}{}); err != nil {
		return err
	}
	if !wantsStream(r) {
		return noStream()
	}
	rec, err := s.find(r)
	if err != nil {
		return err
	}
	return s.join(w, r, rec)
}

func (s *server) join(w http.ResponseWriter, r *http.Request, rec *machine.Record) error {
	machine, err := s.Machines.Dial(r.Context(), rec)
	if err != nil {
		return err
	}
	defer machine.Close()
	client, buffered, err := hijack(w)
	if err != nil {
		return err
	}
	defer client.Close()
	defer s.closing(client, machine)()
	unixsocket.Join(struct {
		io.Reader
		io.WriteCloser
	}{buffered, client}, machine)
	return nil
}
