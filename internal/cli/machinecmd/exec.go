package machinecmd

import (
	"context"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/connect"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/exit"
	"github.com/spf13/cobra"
)

// execFlags are the flags of exec.
type execFlags struct {
	env, envFiles    []string
	user, dir        string
	interactive, tty bool
	detach           bool
}

func execCommand(e *env.Env) *cobra.Command {
	var x execFlags
	cmd := &cobra.Command{
		Use:   "exec [flags] MACHINE COMMAND [ARG…]",
		Short: "Run a further command in a machine",
		Long: "Run a further command in a running machine. The exit code is the command's; with\n" +
			"--detach it is 0 once the command has been started.",
		Example: `  banger exec web ps aux
  banger exec -it web bash`,
		ValidArgsFunction: machineNames(e),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return exit.Usagef("%s takes MACHINE and COMMAND", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return exit.OfCommand(execInMachine(cmd.Context(), e, &x, args))
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.StringArrayVarP(&x.env, "env", "e", nil, "NAME=VALUE for the command, or NAME to pass the value on from here")
	f.StringArrayVar(&x.envFiles, "env-file", nil, "file of such lines")
	f.StringVarP(&x.user, "user", "u", "", "user[:group], names or numbers (default the machine's)")
	f.StringVarP(&x.dir, "workdir", "w", "", "working directory, which must exist (default the machine's)")
	f.BoolVarP(&x.detach, "detach", "d", false, "start the command and leave it to itself; what it says is dropped")
	f.BoolVarP(&x.interactive, "interactive", "i", false, "pass standard input to the command")
	f.BoolVarP(&x.tty, "tty", "t", false, "give the command a terminal")
	return cmd
}

func execInMachine(ctx context.Context, e *env.Env, x *execFlags, args []string) error {
	s := newSession(e)
	s.Machine, s.Exec = args[0], true
	if err := s.Open(x.tty, x.interactive && !x.detach, ""); err != nil {
		return err
	}
	variables, err := environment(x.envFiles, x.env)
	if err != nil {
		return err
	}
	if s.Daemon, err = connect.Daemon(ctx, e); err != nil {
		return err
	}
	req := api.ExecRequest{Args: args[1:], Env: variables, User: x.user, Dir: x.dir, TTY: s.TTY(), Detach: x.detach}
	return s.Run(ctx, func(ctx context.Context, streams api.Stdio) (*api.Process, error) {
		return s.Daemon.Exec(ctx, args[0], req, streams)
	})
}
