package machinecmd

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/poll"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/exit"
	"github.com/spf13/pflag"
)

// A waitFlag is the value of --wait: the state of the machine at which a command
// that starts it in the background returns.
type waitFlag string

const (
	waitReady waitFlag = "ready" // the agent answers
	waitInit  waitFlag = "init"  // the image's init has started the machine, too
)

func (w *waitFlag) register(f *pflag.FlagSet) {
	f.StringVar((*string)(w), "wait", string(waitReady), "return when the machine is ready, or when its init is: ready or init")
}

// check returns a usage error for a value that makes no sense.
func (w *waitFlag) check(background bool) error {
	switch {
	case *w != waitReady && *w != waitInit:
		return exit.Usagef("--wait=%s: want ready or init", string(*w))
	case *w == waitInit && !background:
		return exit.Usagef("--wait=init is for what runs in the background: leave it out")
	}
	return nil
}

// await waits for the image's init of a machine whose agent answers. Only systemd
// reports when it has started the machine; with another init await returns at once.
func (w *waitFlag) await(ctx context.Context, e *env.Env, daemon *api.Client, ref string) error {
	if *w != waitInit {
		return nil
	}
	m, err := daemon.Inspect(ctx, ref)
	if err != nil {
		return err
	}
	if m.State != api.StateRunning {
		return notRunning(ref)
	}
	if m.Init != "image" {
		return nil
	}
	const interval = 300 * time.Millisecond
	err = poll.Until(ctx, interval, func() (bool, error) { return systemState(ctx, e, daemon, m.ID) })
	if err != nil {
		return fmt.Errorf("wait for the init of machine %s: %w", m.Name, err)
	}
	return nil
}

// systemState asks systemctl(1) for the state of a machine. It reports whether the
// start is over.
func systemState(ctx context.Context, e *env.Env, daemon *api.Client, id string) (done bool, err error) {
	var out bytes.Buffer
	req := api.ExecRequest{Args: []string{"systemctl", "is-system-running"}, User: "0", Dir: "/"}
	p, err := daemon.Exec(ctx, id, req, api.Stdio{Out: &out})
	if err != nil {
		return false, err
	}
	defer context.AfterFunc(ctx, func() { _ = p.Close() })() // Wait returns then
	result, err := p.Wait()
	if err != nil {
		return false, err
	}
	const notFound = 127
	state := strings.TrimSpace(out.String())
	switch {
	case result.Code == notFound:
		e.Note("the image's init is not systemd: the machine is ready, and whether its init is cannot be seen")
		return true, nil
	case state == "running":
		return true, nil
	case state == "degraded":
		e.Note("systemd has started the machine, but units have failed: banger exec %s systemctl --failed", id)
		return true, nil
	case state == "maintenance" || state == "stopping":
		return false, fmt.Errorf("systemd reports %s", state)
	}
	return false, nil // initializing, starting, or systemd does not answer yet
}
