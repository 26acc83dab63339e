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
	"github.com/banger-vm/banger/internal/machine/control"
	"github.com/banger-vm/banger/internal/machine/record"
)

// errNeedsStream returns the error for a request that needs a stream and does not
// ask for one.
func errNeedsStream() error {
	return invalid("this request needs a stream: send Connection: Upgrade and Upgrade: %s", api.Protocol)
}

// wantsStream reports whether a request asks to make its connection a stream.
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

// hijack takes the connection of a request from the HTTP server and sends the
// answer 101. The reader has the bytes that the server has already read.
func hijack(w http.ResponseWriter) (net.Conn, *bufio.Reader, error) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, nil, fmt.Errorf("upgrade connection: %w", err)
	}
	if rec, ok := w.(*statusRecorder); ok {
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

// upgrade makes the connection of a request a stream of frames.
func upgrade(w http.ResponseWriter) (*frames.Conn, error) {
	conn, r, err := hijack(w)
	if err != nil {
		return nil, err
	}
	return frames.NewBuffered(conn, r), nil
}

func (h *handlers) exec(w http.ResponseWriter, r *http.Request) error {
	return joinRequest(h, w, r, h.machines.Exec)
}

func (h *handlers) attach(w http.ResponseWriter, r *http.Request) error {
	return joinRequest(h, w, r, h.machines.Attach)
}

// archive copies files of a machine. A machine that does not run boots for it,
// without a program of its image.
func (h *handlers) archive(w http.ResponseWriter, r *http.Request) error {
	var req api.ArchiveRequest
	rec, err := h.decodeStream(w, r, &req)
	if err != nil {
		return err
	}
	if !isRunning(rec) {
		hold, err := h.starter.holdFiles(r.Context(), rec)
		if err != nil {
			return err
		}
		defer hold.Close()
	}
	supervisor, err := h.machines.Archive(r.Context(), rec.ID, req)
	if err != nil {
		return err
	}
	return h.join(w, supervisor)
}

// joinRequest opens a stream to a machine's supervisor by open and joins the
// connection of a request to it.
func joinRequest[T any](h *handlers, w http.ResponseWriter, r *http.Request,
	open func(ctx context.Context, id string, req T) (*frames.Conn, error),
) error {
	var req T
	rec, err := h.decodeStream(w, r, &req)
	if err != nil {
		return err
	}
	supervisor, err := open(r.Context(), rec.ID, req)
	if err != nil {
		return err
	}
	return h.join(w, supervisor)
}

// join makes the connection of a request a stream and joins it to a supervisor. If
// the supervisor takes the connection over, the stream does not end with the daemon.
func (h *handlers) join(w http.ResponseWriter, supervisor *frames.Conn) error {
	defer supervisor.Close()
	stop := h.quit.closeOnRequest(supervisor)
	first, err := firstFrame(supervisor)
	stop()
	if err != nil {
		return err
	}
	conn, r, err := hijack(w)
	if err != nil {
		return err
	}
	defer conn.Close()
	if to, ok := supervisor.Stream().(net.Conn); ok && first != nil && first.Kind == frames.Answer {
		read, err := r.Peek(r.Buffered())
		if err != nil {
			return err
		}
		return control.PassClient(to, conn, read)
	}
	client := frames.NewBuffered(conn, r)
	defer h.quit.closeOnRequest(client, supervisor)()
	if first != nil && client.Send(first.Kind, first.Payload) != nil {
		return nil // the client has disconnected
	}
	frames.Relay(client, supervisor)
	return nil
}

// firstFrame returns the first frame of a supervisor: an Answer if the supervisor
// takes connections over, or the first frame for the client if it is of an older
// version. It returns nil for a stream by which no connection can be passed.
func firstFrame(supervisor *frames.Conn) (*frames.Frame, error) {
	if _, ok := supervisor.Stream().(*net.UnixConn); !ok {
		return nil, nil
	}
	f, err := supervisor.Next()
	if err != nil {
		return nil, &api.Error{Code: api.CodeNotRunning, Message: "the machine has ended"}
	}
	return &f, nil
}

// decodeStream reads the body of a request that needs a stream, and returns the
// record of its machine.
func (h *handlers) decodeStream(w http.ResponseWriter, r *http.Request, req any) (*record.Record, error) {
	if err := decode(w, r, req); err != nil {
		return nil, err
	}
	if !wantsStream(r) {
		return nil, errNeedsStream()
	}
	return h.find(r)
}

// agent joins the connection of a request to the SSH server of a machine's agent.
func (h *handlers) agent(w http.ResponseWriter, r *http.Request) error {
	rec, err := h.decodeStream(w, r, &struct{}{})
	if err != nil {
		return err
	}
	if why := h.machines.Paused(r.Context(), rec.ID); why != "" {
		return fmt.Errorf("machine %s is paused (%s)", rec.Config.Name, why)
	}
	agent, err := h.machines.Dial(r.Context(), rec)
	if err != nil {
		return err
	}
	defer agent.Close()
	client, buffered, err := hijack(w)
	if err != nil {
		return err
	}
	defer client.Close()
	defer h.quit.closeOnRequest(client, agent)()
	unixsocket.Join(struct {
		io.Reader
		io.WriteCloser
	}{buffered, client}, agent)
	return nil
}

// copyFrames sends the frames of one connection to another until either ends.
func copyFrames(to, from *frames.Conn) {
	for {
		f, err := from.Next()
		if err != nil {
			return
		}
		if err := to.Send(f.Kind, f.Payload); err != nil {
			return
		}
	}
}
