package cli

import (
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/banger-vm/banger/internal/vm"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"
)

func (a *app) psCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "ps", Short: "List machines", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.listMachines(cmd, all) },
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also those that do not run")
	return cmd
}

func (a *app) listMachines(cmd *cobra.Command, all bool) error {
	machines, err := a.openMachines(cmd.Context())
	if err != nil {
		return err
	}
	records, damaged, err := machines.Machines()
	if err != nil {
		return err
	}
	for _, d := range damaged {
		a.note("warning: %v", d)
	}
	shown := []*vm.Record{}
	for _, rec := range records {
		if all || rec.State == vm.StateRunning {
			shown = append(shown, rec)
		}
	}
	if a.json {
		return a.printJSON(shown)
	}
	if a.quiet {
		for _, rec := range shown {
			fmt.Fprintln(a.out, rec.ID)
		}
		return nil
	}
	const padding = 3
	w := tabwriter.NewWriter(a.out, 0, 0, padding, ' ', 0)
	fmt.Fprintln(w, "ID\tNAME\tIMAGE\tCOMMAND\tCREATED\tSTATUS")
	for _, rec := range shown {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s ago\t%s\n", rec.ID, rec.Config.Name, rec.ImageName,
			shortCommand(rec.Plan.Words()), units.HumanDuration(time.Since(rec.Created)), machineStatus(rec))
	}
	return w.Flush()
}

func shortCommand(words []string) string {
	const width = 24
	text := []rune(fmt.Sprintf("%q", strings.Join(words, " ")))
	if len(text) > width {
		text = append(text[:width-1], '…')
	}
	return string(text)
}

func machineStatus(rec *vm.Record) string {
	switch rec.State {
	case vm.StateRunning:
		return "Up " + units.HumanDuration(time.Since(rec.Started))
	case vm.StateExited:
		if rec.Finished.IsZero() {
			return fmt.Sprintf("Exited (%d)", rec.ExitCode)
		}
		return fmt.Sprintf("Exited (%d) %s ago", rec.ExitCode, units.HumanDuration(time.Since(rec.Finished)))
	case vm.StateCreating, vm.StateCreated:
	}
	return "Created"
}

// machineNames completes the names of machines.
func (a *app) machineNames(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	if err := a.prepare(cmd, nil); err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	machines, err := vm.Open(a.paths.Data, a.paths.Runtime)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	records, _, err := machines.Machines()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, rec := range records {
		names = append(names, rec.Config.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) rmCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rm MACHINE…", Short: "Remove machines and their disks",
		Args: atLeastOne("MACHINE"), ValidArgsFunction: a.machineNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			machines, err := a.openMachines(cmd.Context())
			if err != nil {
				return err
			}
			return eachImage(args, func(ref string) error {
				rec, err := machines.Find(ref)
				if err != nil {
					return err
				}
				if err := machines.Remove(cmd.Context(), rec.ID); err != nil {
					if errors.Is(err, vm.ErrRunning) {
						return fmt.Errorf("machine %s: %w", ref, vm.ErrRunning)
					}
					return err
				}
				fmt.Fprintln(a.out, ref)
				return nil
			})
		},
	}
}
