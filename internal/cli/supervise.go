package cli

import (
	"github.com/banger-vm/banger/internal/machine"
	"github.com/spf13/cobra"
)

// superviseCommand is a machine's supervisor, which the daemon starts. It
// lives as long as the machine runs.
func (a *app) superviseCommand() *cobra.Command {
	return &cobra.Command{
		Use: "supervise MACHINE", Hidden: true, Args: exactly("MACHINE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			machines, err := machine.Open(a.paths.Data, a.paths.Runtime)
			if err != nil {
				return err
			}
			kernels, err := a.openKernels()
			if err != nil {
				return err
			}
			return machines.Supervise(cmd.Context(), args[0], kernels, machine.Host{Cache: a.paths.Cache})
		},
	}
}
