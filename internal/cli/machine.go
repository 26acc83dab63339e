package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/machine"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"
)

// A machineRow is a machine as lists and formats have it: with what a person
// wants to read besides.
type machineRow struct{ api.Machine }

// Status is the state in words, with its age.
func (m machineRow) Status() string {
	switch m.State {
	case api.StateCreating:
		return "Creating"
	case api.StateRunning:
		return "Up " + units.HumanDuration(time.Since(m.Started))
	case api.StateExited:
		if m.Finished.IsZero() {
			return fmt.Sprintf("Exited (%d)", m.ExitCode)
		}
		return fmt.Sprintf("Exited (%d) %s ago", m.ExitCode, units.HumanDuration(time.Since(m.Finished)))
	case api.StateCreated:
	}
	return "Created"
}

// Age is how long ago the machine was made.
func (m machineRow) Age() string { return units.HumanDuration(time.Since(m.Created)) + " ago" }

// Labels are KEY=VALUE, in order, with commas between.
func (m machineRow) Labels() string {
	var out []string
	for key, value := range m.Config.Labels {
		out = append(out, key+"="+value)
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}

func machineRows(machines []api.Machine) []machineRow {
	rows := []machineRow{}
	for _, m := range machines {
		rows = append(rows, machineRow{m})
	}
	return rows
}

// machineNames completes the names of machines. It reads the records itself:
// a key on the keyboard starts no daemon.
func (a *app) machineNames(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	if err := a.prepare(cmd, nil); err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	machines, err := machine.Open(a.paths.Data, a.paths.Runtime)
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

// eachMachine asks the daemon something of every machine that args name, goes
// on after an error, and prints the argument where there was none.
func (a *app) eachMachine(ctx context.Context, args []string, do func(*api.Client, string) error) error {
	daemon, err := a.daemon(ctx)
	if err != nil {
		return err
	}
	return eachImage(args, func(ref string) error {
		if err := do(daemon, ref); err != nil {
			return err
		}
		_, err := fmt.Fprintln(a.out, ref)
		return err
	})
}
