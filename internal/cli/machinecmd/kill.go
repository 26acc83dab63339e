package machinecmd

import (
	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/spf13/cobra"
)

func killCommand(e *env.Env) *cobra.Command {
	var signal string
	cmd := &cobra.Command{
		Use: "kill MACHINE…", Short: "Kill machines, or send their commands a signal",
		Example: `  banger kill web
  banger kill -s HUP web`,
		Long: "Kill running machines, as pulling the plug would. With --signal their main\n" +
			"commands get that signal instead.",
		Args: arg.AtLeastOne("MACHINE"), ValidArgsFunction: machineNames(e),
		RunE: func(cmd *cobra.Command, args []string) error {
			return eachMachine(cmd.Context(), e, args, func(daemon *api.Client, ref string) error {
				return daemon.Kill(cmd.Context(), ref, api.KillRequest{Signal: signal})
			})
		},
	}
	cmd.Flags().StringVarP(&signal, "signal", "s", "KILL", "signal for the main command; KILL ends the machine")
	return cmd
}
