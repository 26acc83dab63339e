package machinecmd

import (
	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/spf13/cobra"
)

func restartCommand(e *env.Env) *cobra.Command {
	return endCommand(e, (*api.Client).Restart, &cobra.Command{
		Use: "restart MACHINE…", Short: "Stop machines and boot them again",
		Example: "  banger restart web",
		Long: "Stop machines as banger stop does, where they run, and boot them again in the\n" +
			"background.",
	})
}
