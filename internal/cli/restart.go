package cli

import (
	"github.com/banger-vm/banger/api"
	"github.com/spf13/cobra"
)

func (a *app) restartCommand() *cobra.Command {
	var s stopFlags
	cmd := &cobra.Command{
		Use: "restart MACHINE…", Short: "Stop machines and boot them again",
		Long: "Stop machines as banger stop does, where they run, and boot them again in the\n" +
			"background.",
		Args: atLeastOne("MACHINE"), ValidArgsFunction: a.machineNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := s.request()
			if err != nil {
				return err
			}
			return a.eachMachine(cmd.Context(), args, func(daemon *api.Client, ref string) error {
				return daemon.Restart(cmd.Context(), ref, req)
			})
		},
	}
	s.register(cmd)
	return cmd
}
