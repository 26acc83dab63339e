package machinecmd

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/connect"
	"github.com/banger-vm/banger/internal/cli/copyrule"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/exit"
	"github.com/banger-vm/banger/internal/cli/render"
	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/guest/tarcopy"
)

// copyFlags are the flags of cp.
type copyFlags struct{ archive, follow bool }

func cpCommand(e *env.Env) *cobra.Command {
	var flags copyFlags
	cmd := &cobra.Command{
		Use:   "cp [flags] SRC DEST",
		Short: "Copy files out of a machine or into it",
		Long: "Copy a file or a folder between this host and a machine. One of SRC and DEST is\n" +
			"MACHINE:PATH, the other a path of this host, or - for a tar stream on standard\n" +
			"input or output. A folder's content alone is copied where SRC ends in /. and a\n" +
			"path of this host that has a colon begins with / or ./. A machine that does not\n" +
			"run boots for the copy, without its command.",
		Example: `  banger cp web:/var/log/nginx .
  banger cp nginx.conf web:/etc/nginx/
  banger cp site/. web:/srv/www
  banger cp web:/etc - | tar -t`,
		Args: arg.Exactly("SRC", "DEST"),
		RunE: func(cmd *cobra.Command, args []string) error { return cp(cmd.Context(), e, flags, args[0], args[1]) },
	}
	f := cmd.Flags()
	f.BoolVarP(&flags.archive, "archive", "a", false, "keep owners, setuid bits and extended attributes")
	f.BoolVarP(&flags.follow, "follow-link", "L", false, "copy what a symlink SRC leads to")
	return cmd
}

func cp(ctx context.Context, e *env.Env, flags copyFlags, from, to string) error {
	src, err := copyrule.Parse(from)
	if err != nil {
		return exit.Usagef("SRC: %v", err)
	}
	dst, err := copyrule.Parse(to)
	if err != nil {
		return exit.Usagef("DEST: %v", err)
	}
	if (src.Machine == "") == (dst.Machine == "") {
		return exit.Usagef("one of SRC and DEST is MACHINE:PATH, and the other a path of this host or -")
	}
	if _, ok := env.Terminal(e.Out); ok && dst.Stream {
		return exit.Usagef("a tar stream is not for a terminal: redirect it, or name a DEST")
	}
	daemon, err := connect.Daemon(ctx, e)
	if err != nil {
		return err
	}
	c := copier{flags: flags, daemon: daemon, machine: src.Machine + dst.Machine, note: e.Note}
	switch {
	case dst.Stream:
		return c.getStream(ctx, src.Path, e.Out)
	case src.Stream:
		return c.putStream(ctx, e.In, dst.Path)
	case src.Machine != "":
		return c.get(ctx, src.Path, dst.Path)
	}
	return c.put(ctx, src.Path, dst.Path)
}

// A copier copies between this host and one machine.
type copier struct {
	flags   copyFlags
	daemon  *api.Client
	machine string
	sparse  bool // the machine knows sparse entries; stat sets it
	note    func(format string, args ...any)
}

// Operations of an api.ArchiveRequest.
const (
	opStat = string(guest.ArchiveStat)
	opGet  = string(guest.ArchiveGet)
	opPut  = string(guest.ArchivePut)
)

func (c *copier) getRequest(path string) api.ArchiveRequest {
	return api.ArchiveRequest{Path: path, Op: opGet, FollowLink: c.flags.follow, Sparse: c.sparse}
}

// get copies out of the machine. The machine is untrusted: tarcopy.Extract
// confines the stream to the destination.
func (c *copier) get(ctx context.Context, from, to string) error {
	found, err := c.stat(ctx, from)
	if err != nil {
		return err
	}
	src, err := copyrule.NewSource(from, found, c.flags.follow)
	if err != nil {
		return c.wrap(err)
	}
	dst, err := copyrule.HostTarget(to)
	if err != nil {
		return err
	}
	plan, err := copyrule.NewPlan(src, dst)
	if err != nil {
		return err
	}
	entries := 0
	err = c.receive(ctx, from, func(ctx context.Context, r io.Reader) (err error) {
		opts := tarcopy.ExtractOptions{From: plan.From, To: plan.To, Owners: c.flags.archive, Note: c.remark}
		entries, err = tarcopy.Extract(ctx, r, plan.Dir, opts)
		return err
	})
	if err == nil && entries == 0 {
		return c.wrap(errors.New("it sent nothing"))
	}
	return err
}

// getStream copies out of the machine to a tar stream that any program reads.
// The machine sends holes as such, because it is slower than this host.
func (c *copier) getStream(ctx context.Context, from string, out io.Writer) error {
	if _, err := c.stat(ctx, from); err != nil {
		return err
	}
	if !c.sparse {
		return c.run(ctx, c.getRequest(from), nil, out)
	}
	return c.receive(ctx, from, func(ctx context.Context, r io.Reader) error { return tarcopy.Expand(ctx, out, r) })
}

// receive calls take with the stream that the machine sends for a path.
func (c *copier) receive(ctx context.Context, from string, take func(context.Context, io.Reader) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		err := c.run(ctx, c.getRequest(from), nil, w)
		w.CloseWithError(err)
		sent <- err
	}()
	err := take(ctx, r)
	if err != nil {
		cancel()
	}
	r.CloseWithError(errDone)
	return c.cause(<-sent, err)
}

// put copies into the machine.
func (c *copier) put(ctx context.Context, from, to string) error {
	found, err := tarcopy.Lookup(from)
	if err != nil {
		return err
	}
	src, err := copyrule.NewSource(from, found, c.flags.follow)
	if err != nil {
		return err
	}
	dst, err := copyrule.GuestTarget(to, func(path string) (tarcopy.Stat, error) { return c.stat(ctx, path) })
	if err != nil {
		return err
	}
	plan, err := copyrule.NewPlan(src, dst)
	if err != nil {
		return c.wrap(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		err := tarcopy.Pack(ctx, w, from, tarcopy.PackOptions{
			Name: plan.To, Follow: c.flags.follow, Plain: !c.flags.archive, Sparse: c.sparse, Note: c.remark,
		})
		if err != nil {
			cancel() // the machine waits for the rest of the stream
		}
		w.CloseWithError(err)
		packed <- err
	}()
	err = c.run(ctx, api.ArchiveRequest{Path: plan.Dir, Op: opPut, KeepOwners: c.flags.archive}, r, nil)
	r.CloseWithError(errDone)
	return c.cause(err, <-packed)
}

// putStream copies a tar stream into a folder of the machine. The files get the
// owners that the stream names.
func (c *copier) putStream(ctx context.Context, in io.Reader, to string) error {
	dst, err := copyrule.GuestTarget(to, func(path string) (tarcopy.Stat, error) { return c.stat(ctx, path) })
	if err != nil {
		return err
	}
	if !dst.Dir {
		return c.wrap(fmt.Errorf("copy to %s: %w", to, copyrule.ErrNotFolder))
	}
	return c.run(ctx, api.ArchiveRequest{Path: dst.Path, Op: opPut, KeepOwners: true}, in, nil)
}

// errDone is the error of the pipe between the two sides of a copy after the
// reading side has ended.
var errDone = errors.New("the other side has ended")

// cause returns the error of a copy. If both sides failed, it returns the error
// that is not a consequence of the other one.
func (c *copier) cause(machine, host error) error {
	if _, ok := errors.AsType[*guestError](machine); ok || host == nil || errors.Is(host, errDone) {
		return machine
	}
	return host
}

// A guestError is the message of the guest program for a copy that failed in the
// machine.
type guestError struct{ text string }

func (e *guestError) Error() string { return e.text }

// wrap adds the name of the machine to err.
func (c *copier) wrap(err error) error { return fmt.Errorf("machine %s: %w", c.machine, err) }

func (c *copier) remark(text string) { c.note("banger: %s", render.OneLine(text)) }

// maxStat is the largest JSON of an api.PathStat in bytes, with a wide margin.
const maxStat = 64 << 10

// stat looks up a path in the machine.
func (c *copier) stat(ctx context.Context, path string) (tarcopy.Stat, error) {
	var found api.PathStat
	out := tail{limit: maxStat}
	if err := c.run(ctx, api.ArchiveRequest{Path: path, Op: opStat}, nil, &out); err != nil {
		return tarcopy.Stat{}, err
	}
	if err := json.Unmarshal(out.data, &found); err != nil {
		return tarcopy.Stat{}, c.wrap(fmt.Errorf("look up %s: %w", path, err))
	}
	c.sparse = found.Sparse
	return tarcopy.Stat(found), nil
}

// run runs the machine's side of a copy and waits for its end.
func (c *copier) run(ctx context.Context, req api.ArchiveRequest, in io.Reader, out io.Writer) error {
	stderr := tail{limit: maxRemarks}
	p, err := c.daemon.Archive(ctx, c.machine, req, api.Stdio{In: in, Out: out, Err: &stderr})
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = p.Close() }) // Wait returns the error
	defer stop()
	exit, err := p.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return c.wrap(err)
	}
	remarks := string(stderr.data)
	if exit.Code != 0 {
		at := max(0, strings.LastIndex(remarks, guest.NotePrefix))
		text := strings.TrimPrefix(strings.TrimPrefix(remarks[at:], guest.ErrorPrefix), guest.NotePrefix)
		err = c.wrap(&guestError{cmp.Or(strings.TrimSpace(text), exit.Error, fmt.Sprintf("exit code %d", exit.Code))})
		remarks = remarks[:at]
	}
	for line := range strings.Lines(remarks) {
		c.remark(line)
	}
	return err
}

// maxRemarks is the number of bytes that are kept of a machine's remarks.
const maxRemarks = 64 << 10

// A tail keeps the last bytes that were written to it.
type tail struct {
	data  []byte
	limit int
}

func (t *tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p...)
	if over := len(t.data) - t.limit; over > 0 {
		t.data = bytes.Clone(t.data[over:])
	}
	return len(p), nil
}
