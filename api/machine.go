package api

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// In the methods here ref is a machine's name, its ID, or a prefix of the ID
// that fits no other machine.

// List returns machines, newest first.
func (c *Client) List(ctx context.Context, r ListRequest) (list List, err error) {
	q := url.Values{"filter": r.Filters}
	if r.All {
		q.Set("all", "true")
	}
	err = c.call(ctx, request{method: http.MethodGet, path: "/v1/machines", query: q}, &list)
	return list, err
}

// Inspect returns what is known of a machine.
func (c *Client) Inspect(ctx context.Context, ref string) (m Machine, err error) {
	err = c.call(ctx, request{method: http.MethodGet, path: "/v1/machines/%s", ref: ref}, &m)
	return m, err
}

// Create makes a machine that does not run yet.
func (c *Client) Create(ctx context.Context, r CreateRequest) (made Created, err error) {
	err = c.call(ctx, request{method: http.MethodPost, path: "/v1/machines", body: r}, &made)
	return made, err
}

// Start boots a machine. It returns when the boot has begun; the Process is
// that of the machine's main command where r says Attach, and ends when the
// machine is ready otherwise.
func (c *Client) Start(ctx context.Context, ref string, r StartRequest, streams Stdio) (*Process, error) {
	return c.stream(ctx, request{path: "/v1/machines/%s/start", ref: ref, body: r}, streams, start(r.Attach))
}

// Run makes a machine and boots it, as Start does. The first event has the
// machine.
func (c *Client) Run(ctx context.Context, r RunRequest, streams Stdio) (*Process, error) {
	return c.stream(ctx, request{path: "/v1/run", body: r}, streams, start(r.Start.Attach))
}

// Stop ends a machine and returns when it has ended. It is no error when it
// does not run.
func (c *Client) Stop(ctx context.Context, ref string, r StopRequest) error {
	return c.post(ctx, "stop", ref, r)
}

// Kill sends a signal to a machine's main command, or ends the machine as
// pulling its plug would.
func (c *Client) Kill(ctx context.Context, ref string, r KillRequest) error {
	return c.post(ctx, "kill", ref, r)
}

// Restart stops a machine, if it runs, and boots it. It returns when its
// agent answers.
func (c *Client) Restart(ctx context.Context, ref string, r StopRequest) error {
	return c.post(ctx, "restart", ref, r)
}

// Rename gives a machine another name.
func (c *Client) Rename(ctx context.Context, ref, name string) error {
	return c.post(ctx, "rename", ref, RenameRequest{Name: name})
}

// Wait waits for a machine's end and returns its main command's. It returns
// at once when the machine does not run.
func (c *Client) Wait(ctx context.Context, ref string) (exit Exit, err error) {
	err = c.call(ctx, request{method: http.MethodPost, path: "/v1/machines/%s/wait", ref: ref}, &exit)
	return exit, err
}

func (c *Client) post(ctx context.Context, verb, ref string, body any) error {
	return c.call(ctx, request{method: http.MethodPost, path: "/v1/machines/%s/" + verb, ref: ref, body: body}, nil)
}

// Remove deletes a machine with its disk. With force one that runs is killed
// before.
func (c *Client) Remove(ctx context.Context, ref string, force bool) error {
	q := request{method: http.MethodDelete, path: "/v1/machines/%s", ref: ref}
	if force {
		q.query = url.Values{"force": {"true"}}
	}
	return c.call(ctx, q, nil)
}

// Prune removes machines that do not run.
func (c *Client) Prune(ctx context.Context, r PruneRequest) (pruned Pruned, err error) {
	err = c.call(ctx, request{method: http.MethodPost, path: "/v1/prune", body: r}, &pruned)
	return pruned, err
}

// Exec runs a further command in a running machine. Where streams has an
// input the command gets it.
func (c *Client) Exec(ctx context.Context, ref string, r ExecRequest, streams Stdio) (*Process, error) {
	r.Stdin = r.Stdin || streams.In != nil
	return c.stream(ctx, request{path: "/v1/machines/%s/exec", ref: ref, body: r}, streams, command)
}

// Attach connects with the main command of a running machine. Where streams
// has an input the command gets it.
func (c *Client) Attach(ctx context.Context, ref string, r AttachRequest, streams Stdio) (*Process, error) {
	r.Stdin = r.Stdin || streams.In != nil
	return c.stream(ctx, request{path: "/v1/machines/%s/attach", ref: ref, body: r}, streams, command)
}

// Archive copies files out of a running machine, to streams.Out, or into it,
// from streams.In.
func (c *Client) Archive(ctx context.Context, ref string, r ArchiveRequest, streams Stdio) (*Process, error) {
	return c.stream(ctx, request{path: "/v1/machines/%s/archive", ref: ref, body: r}, streams, command)
}

// Agent connects to the SSH server of a running machine's agent. ctx bounds
// the time until it is connected.
func (c *Client) Agent(ctx context.Context, ref string) (net.Conn, error) {
	a, err := c.send(ctx, request{method: http.MethodPost, path: "/v1/machines/%s/agent", ref: ref, upgrade: true})
	if err != nil {
		return nil, err
	}
	return &buffered{a.conn, a.r}, nil
}

// Logs calls each with the pieces of a machine's log, in the order in which
// they were written. An error of each ends it, and is its own.
func (c *Client) Logs(ctx context.Context, ref string, r LogsRequest, each func(LogLine) error) error {
	q := url.Values{"tail": {strconv.Itoa(r.Tail)}}
	for name, set := range map[string]bool{"console": r.Console, "follow": r.Follow} {
		if set {
			q.Set(name, "true")
		}
	}
	for name, at := range map[string]time.Time{"since": r.Since, "until": r.Until} {
		if !at.IsZero() {
			q.Set(name, at.Format(time.RFC3339Nano))
		}
	}
	return c.lines(ctx, request{method: http.MethodGet, path: "/v1/machines/%s/logs", ref: ref, query: q}, decoded(each))
}

// Stats calls each with what a running machine uses: once, or with follow
// every second until the machine ends. An error of each ends it, and is its
// own.
func (c *Client) Stats(ctx context.Context, ref string, follow bool, each func(Stats) error) error {
	q := request{method: http.MethodGet, path: "/v1/machines/%s/stats", ref: ref}
	if follow {
		q.query = url.Values{"follow": {"true"}}
	}
	return c.lines(ctx, q, decoded(each))
}

func decoded[T any](each func(T) error) func([]byte) error {
	return func(line []byte) error {
		var v T
		if err := json.Unmarshal(line, &v); err != nil {
			return err
		}
		return each(v)
	}
}
