package cli

import (
	"github.com/banger-vm/banger/api"
	"github.com/spf13/cobra"
)

func (a *app) restartCommand() *cobra.Command {
	return a.endCommand((*api.Client).Restart, &cobra.Command{
		Use: "restart MACHINE…", Short: "Stop machines and boot them again",
		Long: "Stop machines as banger stop does, where they run, and boot them again in the\n" +
			"background.",
	})
}
