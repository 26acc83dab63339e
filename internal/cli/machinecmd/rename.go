package machinecmd

import (
	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/connect"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/render"
	"github.com/spf13/cobra"
)

func renameCommand(e *env.Env) *cobra.Command {
	return &cobra.Command{
		Use: "rename MACHINE NAME", Short: "Give a machine another name",
		Example: "  banger rename web old-web",
		Long:    "Give a machine another name. The hostname inside stays as it is.",
		Args:    arg.Exactly("MACHINE", "NAME"), ValidArgsFunction: machineNames(e),
		RunE: func(cmd *cobra.Command, args []string) error {
			daemon, err := connect.Daemon(cmd.Context(), e)
			if err != nil {
				return err
			}
			if err := daemon.Rename(cmd.Context(), args[0], args[1]); err != nil || !e.JSON {
				return err
			}
			return render.JSON(e.Out, map[string]string{"machine": args[0], "name": args[1]})
		},
	}
}
