package machinecmd

import (
	"context"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/exit"
	"github.com/spf13/cobra"
)

// stopGrace is the time between the stop signal and SIGKILL, as docker has it.
const stopGrace = 10 * time.Second

// stopFlags are the flags of stop and restart.
type stopFlags struct{ seconds int }

func (s *stopFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	const help = "seconds between the stop signal and SIGKILL"
	f.IntVarP(&s.seconds, "time", "t", int(stopGrace/time.Second), help)
	f.IntVar(&s.seconds, "timeout", int(stopGrace/time.Second), help)
	f.Lookup("timeout").Hidden = true // docker's newer name of --time
}

func (s *stopFlags) request() (api.StopRequest, error) {
	if s.seconds < 0 {
		return api.StopRequest{}, exit.Usagef("--time=%d is negative", s.seconds)
	}
	return api.StopRequest{Timeout: &s.seconds}, nil
}

func stopCommand(e *env.Env) *cobra.Command {
	return endCommand(e, (*api.Client).Stop, &cobra.Command{
		Use: "stop MACHINE…", Short: "Stop machines",
		Example: `  banger stop web
  banger stop -t 30 web db`,
		Long: "Stop running machines: the command gets the image's stop signal, and SIGKILL when\n" +
			"its time is over; then the machine powers off.",
	})
}

// endCommand completes cmd, which ends machines by the request ask.
func endCommand(e *env.Env, ask func(*api.Client, context.Context, string, api.StopRequest) error, cmd *cobra.Command) *cobra.Command {
	var s stopFlags
	s.register(cmd)
	cmd.Args, cmd.ValidArgsFunction = arg.AtLeastOne("MACHINE"), machineNames(e)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req, err := s.request()
		if err != nil {
			return err
		}
		return eachMachine(cmd.Context(), e, args, func(daemon *api.Client, ref string) error {
			return ask(daemon, cmd.Context(), ref, req)
		})
	}
	return cmd
}
