package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) waitCommand() *cobra.Command {
	return &cobra.Command{
		Use: "wait MACHINE…", Short: "Wait until machines have ended and print their exit codes",
		Args: atLeastOne("MACHINE"), ValidArgsFunction: a.machineNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			daemon, err := a.daemon(cmd.Context())
			if err != nil {
				return err
			}
			return eachImage(args, func(ref string) error {
				exit, err := daemon.Wait(cmd.Context(), ref)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintln(a.out, exit.Code)
				return err
			})
		},
	}
}
