package machinecmd

import (
	"context"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/attach"
	"github.com/banger-vm/banger/internal/cli/connect"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/exit"
	"github.com/spf13/cobra"
)

// startFlags are the flags of start.
type startFlags struct {
	kernel, accel, keys string
	attach, interactive bool
	wait                waitFlag
}

func startCommand(e *env.Env) *cobra.Command {
	var s startFlags
	cmd := &cobra.Command{
		Use:   "start MACHINE…",
		Short: "Boot machines that do not run, with their disks as they are",
		Example: `  banger start web
  banger start -a web`,
		Long: "Boot machines that do not run, with their disks as they are, and run their commands\n" +
			"in the background; with --attach one in the foreground, as banger run does. A\n" +
			"machine that runs already stays as it is.",
		Args: arg.AtLeastOne("MACHINE"), ValidArgsFunction: machineNames(e),
	}
	f := cmd.Flags()
	f.StringVar(&s.kernel, "kernel", "", "kernel to boot (default the one it had)")
	f.StringVar(&s.accel, "accel", "", "kvm or tcg (default as it was made)")
	f.BoolVarP(&s.attach, "attach", "a", false, "show what the command writes, pass signals on to it and end with its exit code")
	f.BoolVarP(&s.interactive, "interactive", "i", false, "attach, and pass standard input to the command")
	f.StringVar(&s.keys, "detach-keys", attach.DefaultDetachKeys, "keys to leave a terminal with while the machine goes on")
	s.wait.register(f)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		attached := s.attach || s.interactive
		if err := s.wait.check(!attached); err != nil {
			return err
		}
		switch {
		case !attached:
			return eachMachine(cmd.Context(), e, args, func(daemon *api.Client, ref string) error {
				return startDetached(cmd.Context(), e, daemon, &s, ref)
			})
		case len(args) > 1:
			return exit.Usagef("%s --attach takes one MACHINE, got %d", cmd.CommandPath(), len(args))
		case e.JSON:
			return exit.Usagef("%s --attach prints what the command writes: leave out --json", cmd.CommandPath())
		}
		return exit.OfCommand(startAttached(cmd.Context(), e, &s, args[0]))
	}
	return cmd
}

// startDetached returns when the machine's agent answers, or its init with
// --wait=init.
func startDetached(ctx context.Context, e *env.Env, daemon *api.Client, f *startFlags, ref string) error {
	s := newSession(e)
	s.Daemon, s.Machine = daemon, ref
	err := s.Start(ctx, func(ctx context.Context, streams api.Stdio) (*api.Process, error) {
		return daemon.Start(ctx, ref, api.StartRequest{Kernel: f.kernel, Accel: f.accel}, streams)
	})
	if err != nil {
		return err
	}
	return f.wait.await(ctx, e, daemon, ref)
}

// startAttached returns at the end of the main command.
func startAttached(ctx context.Context, e *env.Env, f *startFlags, ref string) error {
	daemon, err := connect.Daemon(ctx, e)
	if err != nil {
		return err
	}
	m, err := daemon.Inspect(ctx, ref)
	if err != nil {
		return err
	}
	s := newSession(e)
	s.Daemon, s.Machine, s.Name = daemon, m.ID, ref
	if err := s.Open(m.Config.TTY, f.interactive && m.Config.Stdin, f.keys); err != nil {
		return err
	}
	return s.Start(ctx, func(ctx context.Context, streams api.Stdio) (*api.Process, error) {
		return daemon.Start(ctx, m.ID, api.StartRequest{
			Kernel: f.kernel, Accel: f.accel, Attach: true, Console: e.Verbose, TTY: s.TTY(),
		}, streams)
	})
}
