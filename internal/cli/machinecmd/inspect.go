package machinecmd

import (
	"errors"

	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/connect"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/render"
	"github.com/spf13/cobra"
)

func inspectCommand(e *env.Env) *cobra.Command {
	var text string
	cmd := &cobra.Command{
		Use: "inspect MACHINE…", Short: "Show all that is known of machines, as JSON",
		Example: `  banger inspect web
  banger inspect --format '{{.State}} {{.Disk.Driver}}' web`,
		Args: arg.AtLeastOne("MACHINE"), ValidArgsFunction: machineNames(e),
	}
	cmd.Flags().StringVarP(&text, "format", "f", "", render.FormatHelp)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		f, err := render.ParseFormat(text)
		if err != nil {
			return err
		}
		daemon, err := connect.Daemon(cmd.Context(), e)
		if err != nil {
			return err
		}
		rows := []machineRow{}
		err = arg.Each(args, func(ref string) error {
			m, err := daemon.Inspect(cmd.Context(), ref)
			if err == nil {
				rows = append(rows, machineRow{m})
			}
			return err
		})
		show := func() error { return render.JSON(e.Out, rows) }
		if f != nil {
			show = func() error { return render.Rows(e.Out, f, rows) }
		}
		if err != nil && len(rows) == 0 {
			return err
		}
		return errors.Join(err, show())
	}
	return cmd
}
