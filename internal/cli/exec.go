package cli

import (
	"context"
	"fmt"

	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/guest/client"
	"github.com/banger-vm/banger/internal/vm"
	"github.com/spf13/cobra"
)

// execFlags say how a further command runs in a machine.
type execFlags struct {
	env, envFiles    []string
	user, dir        string
	interactive, tty bool
}

func (a *app) execCommand() *cobra.Command {
	var e execFlags
	cmd := &cobra.Command{
		Use:   "exec [FLAGS] MACHINE COMMAND [ARG…]",
		Short: "Run a further command in a machine",
		Long:  "Run a further command in a running machine. The exit code is the command's.",
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
	f.StringVarP(&e.user, "user", "u", "", "user[:group], names or numbers (default the image's)")
	f.StringVarP(&e.dir, "workdir", "w", "", "working directory (default the image's)")
	f.BoolVarP(&e.interactive, "interactive", "i", false, "pass standard input to the command")
	f.BoolVarP(&e.tty, "tty", "t", false, "give the command a terminal")
	return cmd
}

func (a *app) exec(ctx context.Context, e *execFlags, args []string) error {
	term, err := a.openTerminal(e.tty, e.interactive)
	if err != nil {
		return err
	}
	env, err := environment(e.envFiles, e.env)
	if err != nil {
		return err
	}
	machines, err := a.openMachines(ctx)
	if err != nil {
		return err
	}
	rec, err := machines.Find(args[0])
	if err != nil {
		return err
	}
	agent, err := machines.Connect(ctx, rec)
	if err != nil {
		return err
	}
	defer agent.Close() //nolint:errcheck // the command's end is known by then
	command := rec.Exec
	command.Args, command.Stdin = args[1:], e.interactive
	command.User, command.Dir = first(e.user, command.User), first(e.dir, command.Dir)
	command.Env = vm.MergeEnv(command.Env, env)
	return a.execIn(ctx, agent, command, term)
}

func (a *app) execIn(ctx context.Context, agent *client.Client, command guest.Command, term *terminal) error {
	streams := client.Stdio{Out: a.out, Err: a.err}
	if command.Stdin {
		streams.In = a.in
	}
	restore, err := term.enter(&streams)
	if err != nil {
		return err
	}
	defer restore()
	p, err := agent.Start(ctx, command, streams)
	if err != nil {
		return fmt.Errorf("start command: %w", err)
	}
	signals := catchSignals()
	defer signals.stop()
	done := make(chan struct{})
	defer close(done)
	go signals.follow(done, p, term, func() {
		agent.Close() //nolint:errcheck // the command's end is not waited for any more
	})
	exit, err := p.Wait()
	if err != nil {
		return fmt.Errorf("wait for command: %w", err)
	}
	if exit.Code != 0 {
		return exitError(exit.Code)
	}
	return nil
}
