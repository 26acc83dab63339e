package machinecmd

import (
	"fmt"

	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/connect"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/spf13/cobra"
)

func waitCommand(e *env.Env) *cobra.Command {
	return &cobra.Command{
		Use: "wait MACHINE…", Short: "Wait until machines have ended and print their exit codes",
		Args: arg.AtLeastOne("MACHINE"), ValidArgsFunction: machineNames(e),
		RunE: func(cmd *cobra.Command, args []string) error {
			daemon, err := connect.Daemon(cmd.Context(), e)
			if err != nil {
				return err
			}
			return arg.Each(args, func(ref string) error {
				exit, err := daemon.Wait(cmd.Context(), ref)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintln(e.Out, exit.Code)
				return err
			})
		},
	}
}
