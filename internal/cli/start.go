package cli

import (
	"context"

	"github.com/banger-vm/banger/api"
	"github.com/spf13/cobra"
)

// startFlags say how machines are booted.
type startFlags struct {
	kernel, accel, keys string
	attach, interactive bool
}

func (a *app) startCommand() *cobra.Command {
	var s startFlags
	cmd := &cobra.Command{
		Use:   "start MACHINE…",
		Short: "Boot machines that do not run, with their disks as they are",
		Long: "Boot machines that do not run, with their disks as they are, and run their commands\n" +
			"in the background; with --attach one in the foreground, as banger run does.",
		Args: atLeastOne("MACHINE"), ValidArgsFunction: a.machineNames,
	}
	f := cmd.Flags()
	f.StringVar(&s.kernel, "kernel", "", "kernel to boot (default the one it had)")
	f.StringVar(&s.accel, "accel", "", "kvm or tcg (default as it was made)")
	f.BoolVarP(&s.attach, "attach", "a", false, "show what the command writes, pass signals on to it and end with its exit code")
	f.BoolVarP(&s.interactive, "interactive", "i", false, "attach, and pass standard input to the command")
	f.StringVar(&s.keys, "detach-keys", defaultDetachKeys, "keys to leave a terminal with while the machine goes on")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case !s.attach && !s.interactive:
			return a.eachMachine(cmd.Context(), args, func(daemon *api.Client, ref string) error {
				return a.startBehind(cmd.Context(), daemon, &s, ref)
			})
		case len(args) > 1:
			return usagef("%s --attach takes one MACHINE, got %d", cmd.CommandPath(), len(args))
		}
		return ownFailure(a.startAttached(cmd.Context(), &s, args[0]))
	}
	return cmd
}

// startBehind returns when the machine's agent answers.
func (a *app) startBehind(ctx context.Context, daemon *api.Client, s *startFlags, ref string) error {
	f := &foreground{app: a, reach: a.daemon, daemon: daemon, machine: ref}
	return f.boot(ctx, func(ctx context.Context, streams api.Stdio) (*api.Process, error) {
		return daemon.Start(ctx, ref, api.StartRequest{Kernel: s.kernel, Accel: s.accel}, streams)
	})
}

func (a *app) startAttached(ctx context.Context, s *startFlags, ref string) error {
	daemon, err := a.daemon(ctx)
	if err != nil {
		return err
	}
	m, err := daemon.Inspect(ctx, ref)
	if err != nil {
		return err
	}
	f := &foreground{app: a, reach: a.daemon, daemon: daemon, machine: m.ID}
	if err := f.connect(m.Config.TTY, s.interactive && m.Config.Stdin, s.keys); err != nil {
		return err
	}
	return f.boot(ctx, func(ctx context.Context, streams api.Stdio) (*api.Process, error) {
		return daemon.Start(ctx, m.ID, api.StartRequest{
			Kernel: s.kernel, Accel: s.accel, Attach: true, Console: a.verbose, TTY: f.term.size(),
		}, streams)
	})
}
