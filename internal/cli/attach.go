package cli

import (
	"context"
	"fmt"

	"github.com/banger-vm/banger/api"
	"github.com/spf13/cobra"
)

// attachFlags say how a machine's main command is connected with.
type attachFlags struct {
	noStdin, sigProxy, console bool
	keys                       string
}

func (a *app) attachCommand() *cobra.Command {
	var t attachFlags
	cmd := &cobra.Command{
		Use: "attach MACHINE", Short: "Connect with a running machine's command",
		Long: "Connect with a running machine's main command as it runs: with its output, and\n" +
			"with its input where it was made with -i. The exit code is the command's.",
		Args: exactly("MACHINE"), ValidArgsFunction: a.machineNames,
		RunE: func(cmd *cobra.Command, args []string) error { return ownFailure(a.attach(cmd.Context(), &t, args[0])) },
	}
	f := cmd.Flags()
	f.BoolVar(&t.noStdin, "no-stdin", false, "leave standard input alone")
	f.BoolVar(&t.sigProxy, "sig-proxy", true, "pass signals on to the command, as banger run does")
	f.BoolVar(&t.console, "console", false, "show the machine's console instead of what the command writes")
	f.StringVar(&t.keys, "detach-keys", defaultDetachKeys, "keys to leave a terminal with while the machine goes on")
	return cmd
}

func (a *app) attach(ctx context.Context, t *attachFlags, ref string) error {
	daemon, err := a.daemon(ctx)
	if err != nil {
		return err
	}
	m, err := daemon.Inspect(ctx, ref)
	if err != nil {
		return err
	}
	if m.State != api.StateRunning {
		return notRunning(m)
	}
	f := &foreground{app: a, reach: a.daemon, daemon: daemon, machine: m.ID, apart: !t.sigProxy, again: api.AttachRequest{Console: t.console}}
	if err := f.connect(m.Config.TTY && !t.console, m.Config.Stdin && !t.noStdin && !t.console, t.keys); err != nil {
		return err
	}
	f.streams.Console = f.out
	return f.attend(ctx, func(ctx context.Context, streams api.Stdio) (*api.Process, error) {
		p, err := daemon.Attach(ctx, m.ID, f.again, streams)
		if err == nil {
			f.term.resized(p)
		}
		return p, err
	})
}

// notRunning says of a machine what the daemon would.
func notRunning(m api.Machine) error {
	return &api.Error{Code: api.CodeNotRunning, Message: fmt.Sprintf("machine %s: machine is not running", m.Name)}
}
