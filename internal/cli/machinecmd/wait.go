package machinecmd

import (
	"context"
	"errors"
	"fmt"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/attach"
	"github.com/banger-vm/banger/internal/cli/connect"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/render"
	"github.com/spf13/cobra"
)

func waitCommand(e *env.Env) *cobra.Command {
	return &cobra.Command{
		Use: "wait MACHINE…", Short: "Wait until machines have ended and print their exit codes",
		Example: "  banger wait web",
		Args:    arg.AtLeastOne("MACHINE"), ValidArgsFunction: machineNames(e),
		RunE: func(cmd *cobra.Command, args []string) error {
			ended := []endedMachine{}
			err := arg.Each(args, func(ref string) error {
				exit, err := waitMachine(cmd.Context(), e, ref)
				if err != nil {
					return err
				}
				ended = append(ended, endedMachine{doneMachine{ref}, exit.Code})
				if e.JSON {
					return nil
				}
				_, err = fmt.Fprintln(e.Out, exit.Code)
				return err
			})
			if e.JSON {
				err = errors.Join(err, render.JSON(e.Out, ended))
			}
			return err
		},
	}
}

// An endedMachine is a machine that wait has waited for, as JSON.
type endedMachine struct {
	doneMachine
	ExitCode int `json:"exitCode"`
}

// waitMachine waits until a machine has ended. If the daemon ends before, it asks
// the next one.
func waitMachine(ctx context.Context, e *env.Env, ref string) (exit api.Exit, err error) {
	id := ""
	err = connect.Retry(ctx, e, func(daemon *api.Client) error {
		if id == "" { // another machine may get the name meanwhile
			m, err := daemon.Inspect(ctx, ref)
			if err != nil {
				return err
			}
			id = m.ID
			exit, err = daemon.Wait(ctx, id)
			return err
		}
		exit, err = daemon.Wait(ctx, id)
		if attach.HasEnded(err) { // and was removed after its end
			return fmt.Errorf("machine %s has ended while there was no daemon to tell its exit code: %w", ref, err)
		}
		return err
	})
	return exit, err
}
