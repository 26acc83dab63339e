package cli

import (
	"github.com/banger-vm/banger/api"
	"github.com/spf13/cobra"
)

func (a *app) rmCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm MACHINE…", Short: "Remove machines and their disks",
		Args: atLeastOne("MACHINE"), ValidArgsFunction: a.machineNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.eachMachine(cmd.Context(), args, func(daemon *api.Client, ref string) error {
				return daemon.Remove(cmd.Context(), ref, force)
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "kill those that run")
	return cmd
}
