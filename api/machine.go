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

// In these methods ref is a machine's name, its ID, or a prefix of its ID that no other
// machine's ID has.

// List returns the machines that r selects, newest first.
func (c *Client) List(ctx context.Context, r ListRequest) (list List, err error) {
	q := url.Values{"filter": r.Filters}
	if r.All {
		q.Set("all", "true")
	}
	err = c.call(ctx, request{method: http.MethodGet, path: "/v1/machines", query: q}, &list)
	return list, err
}

// Inspect returns the record of a machine.
func (c *Client) Inspect(ctx context.Context, ref string) (m Machine, err error) {
	err = c.call(ctx, request{method: http.MethodGet, path: "/v1/machines/%s", ref: ref}, &m)
	return m, err
}

// Create creates a machine and does not boot it.
func (c *Client) Create(ctx context.Context, r CreateRequest) (made Created, err error) {
	err = c.call(ctx, request{method: http.MethodPost, path: "/v1/machines", body: r}, &made)
	return made, err
}

// Start boots a machine and returns when the boot has begun. If r.Attach is set, the
// Process is the machine's main command; else it ends when the machine is ready.
func (c *Client) Start(ctx context.Context, ref string, r StartRequest, streams Stdio) (*Process, error) {
	return c.stream(ctx, request{path: "/v1/machines/%s/start", ref: ref, body: r}, streams, start(r.Attach))
}

// Run creates a machine and boots it as Start does. The first Event has the machine.
func (c *Client) Run(ctx context.Context, r RunRequest, streams Stdio) (*Process, error) {
	return c.stream(ctx, request{path: "/v1/run", body: r}, streams, start(r.Start.Attach))
}

// Stop ends a machine and returns when it has ended. It returns nil if the machine does
// not run.
func (c *Client) Stop(ctx context.Context, ref string, r StopRequest) error {
	return c.post(ctx, "stop", ref, r)
}

// Kill sends a signal to a machine's main command, or ends the machine at once, like a
// power failure.
func (c *Client) Kill(ctx context.Context, ref string, r KillRequest) error {
	return c.post(ctx, "kill", ref, r)
}

// Restart stops a machine if it runs, and boots it. It returns when its agent answers.
func (c *Client) Restart(ctx context.Context, ref string, r StopRequest) error {
	return c.post(ctx, "restart", ref, r)
}

// Rename changes the name of a machine.
func (c *Client) Rename(ctx context.Context, ref, name string) error {
	return c.post(ctx, "rename", ref, RenameRequest{Name: name})
}

// Wait waits until a machine has ended and returns the exit of its main command. It
// returns at once if the machine does not run.
func (c *Client) Wait(ctx context.Context, ref string) (exit Exit, err error) {
	err = c.call(ctx, request{method: http.MethodPost, path: "/v1/machines/%s/wait", ref: ref}, &exit)
	return exit, err
}

func (c *Client) post(ctx context.Context, verb, ref string, body any) error {
	return c.call(ctx, request{method: http.MethodPost, path: "/v1/machines/%s/" + verb, ref: ref, body: body}, nil)
}

// Remove deletes a machine and its disk. With force it first kills a machine that runs.
func (c *Client) Remove(ctx context.Context, ref string, force bool) error {
	q := request{method: http.MethodDelete, path: "/v1/machines/%s", ref: ref}
	if force {
		q.query = url.Values{"force": {"true"}}
	}
	return c.call(ctx, q, nil)
}

// Prune removes the machines that do not run and match r.
func (c *Client) Prune(ctx context.Context, r PruneRequest) (pruned Pruned, err error) {
	err = c.call(ctx, request{method: http.MethodPost, path: "/v1/prune", body: r}, &pruned)
	return pruned, err
}

// Exec runs another command in a running machine. If streams.In is set, the command gets
// it as its input.
func (c *Client) Exec(ctx context.Context, ref string, r ExecRequest, streams Stdio) (*Process, error) {
	r.Stdin = r.Stdin || streams.In != nil
	return c.stream(ctx, request{path: "/v1/machines/%s/exec", ref: ref, body: r}, streams, command)
}

// Attach connects to the main command of a running machine. If streams.In is set, the
// command gets it as its input.
func (c *Client) Attach(ctx context.Context, ref string, r AttachRequest, streams Stdio) (*Process, error) {
	r.Stdin = r.Stdin || streams.In != nil
	return c.stream(ctx, request{path: "/v1/machines/%s/attach", ref: ref, body: r}, streams, command)
}

// Archive copies files out of a machine to streams.Out, or from streams.In into
// the machine.
func (c *Client) Archive(ctx context.Context, ref string, r ArchiveRequest, streams Stdio) (*Process, error) {
	return c.stream(ctx, request{path: "/v1/machines/%s/archive", ref: ref, body: r}, streams, command)
}

// Agent connects to the SSH server of a running machine's agent. The end of ctx
// interrupts the connecting, and not the connection.
func (c *Client) Agent(ctx context.Context, ref string) (net.Conn, error) {
	a, err := c.send(ctx, request{method: http.MethodPost, path: "/v1/machines/%s/agent", ref: ref, upgrade: true})
	if err != nil {
		return nil, err
	}
	return &buffered{a.conn, a.r}, nil
}

// Logs calls each with the lines of a machine's log, in the order in which they were
// written. If each returns an error, Logs stops and returns it unchanged.
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

// Stats calls each with the resources that a running machine uses: once, or with follow
// every second until the machine ends. If each returns an error, Stats stops and returns
// it unchanged.
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
