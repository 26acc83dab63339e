package cli

import (
	"github.com/spf13/cobra"
)

func (a *app) inspectCommand() *cobra.Command {
	var text string
	cmd := &cobra.Command{
		Use: "inspect MACHINE…", Short: "Show all that is known of machines, as JSON",
		Example: `  banger inspect web
  banger inspect --format '{{.State}} {{.Disk.Driver}}' web`,
		Args: atLeastOne("MACHINE"), ValidArgsFunction: a.machineNames,
	}
	cmd.Flags().StringVarP(&text, "format", "f", "", formatHelp)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		f, err := parseFormat(text)
		if err != nil {
			return err
		}
		daemon, err := a.daemon(cmd.Context())
		if err != nil {
			return err
		}
		rows := []machineRow{}
		err = eachImage(args, func(ref string) error {
			m, err := daemon.Inspect(cmd.Context(), ref)
			if err == nil {
				rows = append(rows, machineRow{m})
			}
			return err
		})
		show := func() error { return a.printJSON(rows) }
		if f != nil {
			show = func() error { return printRows(a.out, f, rows) }
		}
		if printErr := show(); err == nil {
			err = printErr
		}
		return err
	}
	return cmd
}
