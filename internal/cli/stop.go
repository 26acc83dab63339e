package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/banger-vm/banger/internal/vm"
	"github.com/spf13/cobra"
)

func (a *app) stopCommand() *cobra.Command {
	var seconds int
	cmd := &cobra.Command{
		Use: "stop MACHINE…", Short: "Stop machines",
		Long: "Stop running machines: the command gets the image's stop signal, and SIGKILL when\n" +
			"its time is over; then the machine powers off.",
		Args: atLeastOne("MACHINE"), ValidArgsFunction: a.machineNames,
	}
	cmd.Flags().IntVarP(&seconds, "time", "t", int(stopGrace.Seconds()), "seconds between the stop signal and SIGKILL")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if seconds < 0 {
			return usagef("--time=%d is negative", seconds)
		}
		machines, err := a.openMachines(cmd.Context())
		if err != nil {
			return err
		}
		return eachImage(args, func(ref string) error {
			if err := a.stopMachine(cmd.Context(), machines, ref, time.Duration(seconds)*time.Second); err != nil {
				return err
			}
			_, err := fmt.Fprintln(a.out, ref)
			return err
		})
	}
	return cmd
}

// stopMachine returns when the machine's owner has let go of it.
func (a *app) stopMachine(ctx context.Context, machines *vm.Store, ref string, grace time.Duration) error {
	rec, err := machines.Find(ref)
	if err != nil {
		return err
	}
	agent, err := machines.Connect(ctx, rec)
	if err != nil {
		return err
	}
	defer agent.Close() //nolint:errcheck // it goes with the machine
	if err := agent.PowerOff(ctx, grace); err != nil {
		return fmt.Errorf("stop machine %s: %w", ref, err)
	}
	return machines.WaitEnd(ctx, rec, grace)
}

func (a *app) inspectCommand() *cobra.Command {
	return &cobra.Command{
		Use: "inspect MACHINE…", Short: "Show all that is known of machines, as JSON",
		Args: atLeastOne("MACHINE"), ValidArgsFunction: a.machineNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			machines, err := a.openMachines(cmd.Context())
			if err != nil {
				return err
			}
			out := []*vm.Record{}
			err = eachImage(args, func(ref string) error {
				rec, err := machines.Find(ref)
				if err == nil {
					out = append(out, rec)
				}
				return err
			})
			if printErr := a.printJSON(out); err == nil {
				err = printErr
			}
			return err
		},
	}
}
