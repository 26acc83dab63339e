package cli

import (
	"github.com/banger-vm/banger/api"
	"github.com/spf13/cobra"
)

func (a *app) killCommand() *cobra.Command {
	var signal string
	cmd := &cobra.Command{
		Use: "kill MACHINE…", Short: "Kill machines, or send their commands a signal",
		Long: "Kill running machines, as pulling the plug would. With --signal their main\n" +
			"commands get that signal instead.",
		Args: atLeastOne("MACHINE"), ValidArgsFunction: a.machineNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.eachMachine(cmd.Context(), args, func(daemon *api.Client, ref string) error {
				return daemon.Kill(cmd.Context(), ref, api.KillRequest{Signal: signal})
			})
		},
	}
	cmd.Flags().StringVarP(&signal, "signal", "s", "KILL", "signal for the main command; KILL ends the machine")
	return cmd
}
