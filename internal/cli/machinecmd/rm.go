package machinecmd

import (
	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/spf13/cobra"
)

func rmCommand(e *env.Env) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm MACHINE…", Short: "Remove machines and their disks",
		Example: `  banger rm web
  banger rm -f $(banger ps -aq)`,
		Args: arg.AtLeastOne("MACHINE"), ValidArgsFunction: machineNames(e),
		RunE: func(cmd *cobra.Command, args []string) error {
			return eachMachine(cmd.Context(), e, args, func(daemon *api.Client, ref string) error {
				return daemon.Remove(cmd.Context(), ref, force)
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "kill those that run")
	return cmd
}
