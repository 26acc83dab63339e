package machinecmd

import (
	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/supervisor"
	"github.com/spf13/cobra"
)

// superviseCommand returns the command of a machine's supervisor. The daemon
// starts it, and it runs as long as the machine.
func superviseCommand(e *env.Env) *cobra.Command {
	return &cobra.Command{
		Use: "supervise MACHINE", Hidden: true, Args: arg.Exactly("MACHINE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			root, err := record.OpenRoot(e.Paths.Data, e.Paths.Runtime)
			if err != nil {
				return err
			}
			kernels, err := kernel.Open(e.Paths.Data)
			if err != nil {
				return err
			}
			return supervisor.Run(cmd.Context(), args[0], supervisor.Config{
				Root: root, Kernels: kernels, Cache: e.Paths.Cache, QEMUFolders: e.Config.QEMU.Folders,
				Unconfined: e.Config.QEMU.Unconfined(),
			})
		},
	}
}
