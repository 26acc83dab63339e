package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func (a *app) pruneCommand() *cobra.Command {
	var force bool
	var filters []string
	cmd := &cobra.Command{
		Use: "prune", Short: "Remove all machines that do not run",
		Long: "Remove all machines that do not run, and their disks.",
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.prune(cmd.Context(), force, filters) },
	}
	f := cmd.Flags()
	f.BoolVarP(&force, "force", "f", false, "do not ask")
	f.StringArrayVar(&filters, "filter", nil, filterHelp+"; also until=, a time or an age as 24h")
	return cmd
}

func (a *app) prune(ctx context.Context, force bool, filters []string) error {
	if !force {
		fmt.Fprintln(a.err, "This removes all machines that do not run, and their disks.")
		if yes, err := a.confirm(); err != nil || !yes {
			return err
		}
	}
	daemon, err := a.daemon(ctx)
	if err != nil {
		return err
	}
	pruned, err := daemon.Prune(ctx, api.PruneRequest{Filters: filters})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(pruned)
	}
	for _, id := range pruned.Machines {
		fmt.Fprintf(a.out, "Deleted: %s\n", id)
	}
	_, err = fmt.Fprintf(a.out, "Total reclaimed space: %s\n", units.BytesSize(float64(pruned.Freed)))
	return err
}

// confirm asks on a terminal. Where nobody can answer, a flag must say yes.
func (a *app) confirm() (bool, error) {
	f, ok := a.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return false, usagef("standard input is not a terminal to ask on: --force does not ask")
	}
	fmt.Fprint(a.err, "Go on? [y/N] ")
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
