package cli

import (
	"github.com/spf13/cobra"
)

func (a *app) renameCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rename MACHINE NAME", Short: "Give a machine another name",
		Long: "Give a machine another name. The hostname inside stays as it is.",
		Args: exactly("MACHINE", "NAME"), ValidArgsFunction: a.machineNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			daemon, err := a.daemon(cmd.Context())
			if err != nil {
				return err
			}
			return daemon.Rename(cmd.Context(), args[0], args[1])
		},
	}
}
