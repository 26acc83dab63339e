package machinecmd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/connect"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/exit"
	"github.com/banger-vm/banger/internal/cli/render"
	"github.com/spf13/cobra"
)

func pruneCommand(e *env.Env) *cobra.Command {
	var force bool
	var filters []string
	cmd := &cobra.Command{
		Use: "prune", Short: "Remove all machines that do not run",
		Example: `  banger prune
  banger prune -f --filter until=24h`,
		Long: "Remove all machines that do not run, and their disks.",
		Args: arg.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return prune(cmd.Context(), e, force, filters) },
	}
	f := cmd.Flags()
	f.BoolVarP(&force, "force", "f", false, "do not ask")
	f.StringArrayVar(&filters, "filter", nil, filterHelp+"; also until=, a time or an age as 24h")
	return cmd
}

func prune(ctx context.Context, e *env.Env, force bool, filters []string) error {
	if !force {
		fmt.Fprintln(e.Err, "This removes all machines that do not run, and their disks.")
		if yes, err := confirm(e); err != nil || !yes {
			return err
		}
	}
	daemon, err := connect.Daemon(ctx, e)
	if err != nil {
		return err
	}
	pruned, err := daemon.Prune(ctx, api.PruneRequest{Filters: filters})
	if err != nil {
		return err
	}
	if e.JSON {
		return render.JSON(e.Out, pruned)
	}
	for _, id := range pruned.Machines {
		fmt.Fprintf(e.Out, "Deleted: %s\n", id)
	}
	_, err = fmt.Fprintf(e.Out, "Total reclaimed space: %s\n", render.Bytes(pruned.Freed))
	return err
}

// confirm asks the user whether to continue. It returns a usage error if standard
// input is not a terminal: then --force is required.
func confirm(e *env.Env) (bool, error) {
	f, ok := env.Terminal(e.In)
	if !ok {
		return false, exit.Usagef("standard input is not a terminal to ask on: --force does not ask")
	}
	fmt.Fprint(e.Err, "Go on? [y/N] ")
	const longest = 80
	answer, err := bufio.NewReader(io.LimitReader(f, longest)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("read answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true, nil
	}
	return false, nil
}
