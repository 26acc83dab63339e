package machinecmd

import (
	"context"
	"fmt"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/attach"
	"github.com/banger-vm/banger/internal/cli/connect"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/exit"
	"github.com/spf13/cobra"
)

// attachFlags are the flags of attach.
type attachFlags struct {
	noStdin, sigProxy, console bool
	keys                       string
}

func attachCommand(e *env.Env) *cobra.Command {
	var t attachFlags
	cmd := &cobra.Command{
		Use: "attach MACHINE", Short: "Connect with a running machine's command",
		Example: "  banger attach web",
		Long: "Connect with a running machine's main command as it runs: with its output, and\n" +
			"with its input where it was made with -i. The exit code is the command's.",
		Args: arg.Exactly("MACHINE"), ValidArgsFunction: machineNames(e),
		RunE: func(cmd *cobra.Command, args []string) error {
			return exit.OfCommand(attachMachine(cmd.Context(), e, &t, args[0]))
		},
	}
	f := cmd.Flags()
	f.BoolVar(&t.noStdin, "no-stdin", false, "leave standard input alone")
	f.BoolVar(&t.sigProxy, "sig-proxy", true, "pass signals on to the command, as banger run does")
	f.BoolVar(&t.console, "console", false, "show the machine's console instead of what the command writes")
	f.StringVar(&t.keys, "detach-keys", attach.DefaultDetachKeys, "keys to leave a terminal with while the machine goes on")
	return cmd
}

func attachMachine(ctx context.Context, e *env.Env, t *attachFlags, ref string) error {
	daemon, err := connect.Daemon(ctx, e)
	if err != nil {
		return err
	}
	m, err := daemon.Inspect(ctx, ref)
	if err != nil {
		return err
	}
	if m.State != api.StateRunning {
		return notRunning(ref)
	}
	s := newSession(e)
	s.Daemon, s.Machine, s.Name, s.NoSignals, s.Console = daemon, m.ID, ref, !t.sigProxy, t.console
	if err := s.Open(m.Config.TTY && !t.console, m.Config.Stdin && !t.noStdin && !t.console, t.keys); err != nil {
		return err
	}
	return s.Attach(ctx)
}

// newSession returns a session that finds the next daemon if one ends.
func newSession(e *env.Env) *attach.Session {
	return &attach.Session{
		Env:    e,
		Redial: func(ctx context.Context) (*api.Client, error) { return connect.Daemon(ctx, e) },
	}
}

// notRunning returns the error that the daemon has for a machine that does not
// run. ref is the name that the user has for it.
func notRunning(ref string) error {
	return &api.Error{Code: api.CodeNotRunning, Message: fmt.Sprintf("machine %s: machine is not running", ref)}
}
