package machinecmd

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/connect"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/render"
	"github.com/spf13/cobra"
)

// psFlags are the flags of ps.
type psFlags struct {
	all, latest, full bool
	last              int
	filters           []string
	format            string
}

func psCommand(e *env.Env) *cobra.Command {
	var p psFlags
	cmd := &cobra.Command{
		Use: "ps", Short: "List machines", Args: arg.Exactly(),
		Long: "List the machines that run, newest first.",
		Example: `  banger ps -a --filter label=tier=web
  banger ps --format 'table {{.Name}}\t{{.Status}}\t{{.Config.Memory}}'
  banger rm $(banger ps -q --filter exited=0)`,
		RunE: func(cmd *cobra.Command, _ []string) error { return ps(cmd.Context(), e, &p) },
	}
	f := cmd.Flags()
	f.BoolVarP(&p.all, "all", "a", false, "also those that do not run")
	f.BoolVarP(&p.latest, "latest", "l", false, "the newest alone, whether it runs or not")
	f.IntVarP(&p.last, "last", "n", -1, "so many of the newest, whether they run or not")
	f.BoolVar(&p.full, "no-trunc", false, "show commands whole")
	f.StringArrayVarP(&p.filters, "filter", "f", nil, filterHelp)
	f.StringVar(&p.format, "format", "", render.FormatHelp)
	return cmd
}

const filterHelp = "name=, id=, label=KEY[=VALUE], label!=KEY[=VALUE], status=, image= or exited=CODE; of several of one key one must fit"

func ps(ctx context.Context, e *env.Env, p *psFlags) error {
	f, err := render.ParseFormat(p.format)
	if err != nil {
		return err
	}
	if p.latest {
		p.last = 1
	}
	daemon, err := connect.Daemon(ctx, e)
	if err != nil {
		return err
	}
	list, err := daemon.List(ctx, api.ListRequest{All: p.all || p.last >= 0 || selectsByState(p.filters), Filters: p.filters})
	if err != nil {
		return err
	}
	render.Warnings(e, list.Warnings)
	shown := list.Machines
	if p.last >= 0 {
		shown = shown[:min(p.last, len(shown))]
	}
	return printMachines(e, machineRows(shown), f, p.full)
}

// selectsByState reports whether a filter selects machines by state or exit code.
// The list then includes machines that do not run.
func selectsByState(filters []string) bool {
	return slices.ContainsFunc(filters, func(f string) bool {
		return strings.HasPrefix(f, "status=") || strings.HasPrefix(f, "exited=")
	})
}

func printMachines(e *env.Env, rows []machineRow, f *render.Format, full bool) error {
	switch {
	case f != nil:
		return render.Rows(e.Out, f, rows)
	case e.JSON:
		return render.JSON(e.Out, rows)
	case e.Quiet:
		for _, m := range rows {
			fmt.Fprintln(e.Out, m.ID)
		}
		return nil
	}
	w := render.NewTable(e.Out)
	fmt.Fprintln(w, "ID\tNAME\tIMAGE\tCOMMAND\tCREATED\tSTATUS")
	for _, m := range rows {
		command := fmt.Sprintf("%q", strings.Join(m.Command, " "))
		if !full {
			const width = 24
			command = render.Truncate(command, width)
		}
		render.Row(w, "%s\t%s\t%s\t%s\t%s\t%s", m.ID, m.Name, m.ImageName, command, m.Age(), m.Status())
	}
	return w.Flush()
}
