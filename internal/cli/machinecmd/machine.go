// Package machinecmd has the commands that deal with machines. They check and
// translate flags, ask the daemon, and show its answers.
package machinecmd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/connect"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/render"
	"github.com/banger-vm/banger/internal/machine"
	"github.com/spf13/cobra"
)

// Commands returns the commands.
func Commands(e *env.Env) []*cobra.Command {
	return []*cobra.Command{
		runCommand(e),
		createCommand(e),
		startCommand(e),
		stopCommand(e),
		killCommand(e),
		restartCommand(e),
		rmCommand(e),
		renameCommand(e),
		waitCommand(e),
		pruneCommand(e),
		psCommand(e),
		inspectCommand(e),
		statsCommand(e),
		logsCommand(e),
		arg.NoJSON(attachCommand(e)),
		arg.NoJSON(execCommand(e)),
		arg.NoJSON(cpCommand(e)),
		arg.NoJSON(sshCommand(e)),
		arg.NoJSON(sshProxyCommand(e)),
		arg.NoJSON(superviseCommand(e)),
		doctorCommand(e),
	}
}

// A machineRow is a machine in lists and templates. Its methods add columns.
type machineRow struct{ api.Machine }

// Status returns the state in words, with its age.
func (m machineRow) Status() string {
	switch m.State {
	case api.StateCreating:
		return "Creating"
	case api.StateRunning:
		up := "Up " + render.Since(m.Started)
		if m.Paused != "" {
			up += ", paused (" + m.Paused + ")"
		}
		return up
	case api.StateExited:
		if m.Finished.IsZero() {
			return fmt.Sprintf("Exited (%d)", m.ExitCode)
		}
		return fmt.Sprintf("Exited (%d) %s", m.ExitCode, render.Ago(m.Finished))
	case api.StateCreated:
	}
	return "Created"
}

// Age returns the time since the machine was created, in words.
func (m machineRow) Age() string { return render.Ago(m.Created) }

// Labels returns the labels as KEY=VALUE, sorted and separated by commas.
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

// machineNames returns a completion by the names of the machines. It reads the
// records itself, so that a completion starts no daemon.
func machineNames(e *env.Env) cobra.CompletionFunc {
	return arg.Complete(e, func() ([]string, error) {
		machines, err := openMachines(e)
		if err != nil {
			return nil, err
		}
		records, _, err := machines.Machines()
		if err != nil {
			return nil, err
		}
		var names []string
		for _, rec := range records {
			names = append(names, rec.Config.Name)
		}
		return names, nil
	})
}

func openMachines(e *env.Env) (*machine.Store, error) {
	return machine.Open(e.Paths.Data, e.Paths.Runtime)
}

// eachMachine calls do for every machine that args name, and prints each argument
// for which do returned no error, with --json all of them at the end. It continues after an error.
func eachMachine(ctx context.Context, e *env.Env, args []string, do func(*api.Client, string) error) error {
	daemon, err := connect.Daemon(ctx, e)
	if err != nil {
		return err
	}
	done := []doneMachine{}
	err = arg.Each(args, func(ref string) error {
		if err := do(daemon, ref); err != nil {
			return err
		}
		done = append(done, doneMachine{ref})
		if e.JSON {
			return nil
		}
		_, err := fmt.Fprintln(e.Out, ref)
		return err
	})
	if e.JSON {
		err = errors.Join(err, render.JSON(e.Out, done))
	}
	return err
}

// A doneMachine is a machine with which a command has succeeded, as JSON.
type doneMachine struct {
	Machine string `json:"machine"` // as the user named it
}
