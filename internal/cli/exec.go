package cli

import (
	"context"

	"github.com/banger-vm/banger/api"
	"github.com/spf13/cobra"
)

// execFlags say how a further command runs in a machine.
type execFlags struct {
	env, envFiles    []string
	user, dir        string
	interactive, tty bool
	detach           bool
}

func (a *app) execCommand() *cobra.Command {
	var e execFlags
	cmd := &cobra.Command{
		Use:   "exec [FLAGS] MACHINE COMMAND [ARG…]",
		Short: "Run a further command in a machine",
		Long: "Run a further command in a running machine. The exit code is the command's; with\n" +
			"--detach it is 0 once the command has been started.",
		Example: `  banger exec web ps aux
  banger exec -it web bash`,
		ValidArgsFunction: a.machineNames,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usagef("%s takes MACHINE and COMMAND", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return ownFailure(a.exec(cmd.Context(), &e, args)) },
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.StringArrayVarP(&e.env, "env", "e", nil, "NAME=VALUE for the command, or NAME to pass the value on from here")
	f.StringArrayVar(&e.envFiles, "env-file", nil, "file of such lines")
	f.StringVarP(&e.user, "user", "u", "", "user[:group], names or numbers (default the machine's)")
	f.StringVarP(&e.dir, "workdir", "w", "", "working directory (default the machine's)")
	f.BoolVarP(&e.detach, "detach", "d", false, "start the command and leave it to itself; what it says is dropped")
	f.BoolVarP(&e.interactive, "interactive", "i", false, "pass standard input to the command")
	f.BoolVarP(&e.tty, "tty", "t", false, "give the command a terminal")
	return cmd
}

func (a *app) exec(ctx context.Context, e *execFlags, args []string) error {
	f := &foreground{app: a, reach: a.daemon, machine: args[0], further: true}
	if err := f.connect(e.tty, e.interactive && !e.detach, ""); err != nil {
		return err
	}
	env, err := environment(e.envFiles, e.env)
	if err != nil {
		return err
	}
	daemon, err := a.daemon(ctx)
	if err != nil {
		return err
	}
	req := api.ExecRequest{Args: args[1:], Env: env, User: e.user, Dir: e.dir, TTY: f.term.size(), Detach: e.detach}
	return f.attend(ctx, func(ctx context.Context, streams api.Stdio) (*api.Process, error) {
		return daemon.Exec(ctx, args[0], req, streams)
	})
}
