// Package daemoncmd has the commands that deal with the daemon.
package daemoncmd

import (
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/connect"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/exit"
	"github.com/banger-vm/banger/internal/daemon"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/machine"
	"github.com/spf13/cobra"
)

// Command returns the daemon command.
func Command(e *env.Env) *cobra.Command {
	var idle time.Duration
	cmd := &cobra.Command{
		Use:   "daemon [flags]",
		Short: "Serve machines to other commands",
		Example: `  banger daemon --idle-timeout 5m
  banger daemon stop`,
		Long: "Serve machines to other commands, which start it when they need it. It listens on a\n" +
			"socket that only this user can reach, or on the one that systemd passes on. Machines\n" +
			"go on when it ends. Its log goes to standard error; -v has more of it.",
		Args: arg.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if idle < 0 {
				return exit.Usagef("--idle-timeout=%v is negative", idle)
			}
			c, err := config(e)
			if err != nil {
				return err
			}
			c.Idle = idle
			return daemon.Serve(cmd.Context(), c)
		},
	}
	cmd.Flags().DurationVar(&idle, "idle-timeout", 0, "end when nothing has been asked for this time, as 5m; 0 is never")
	cmd.AddCommand(arg.NoJSON(installCommand(e)), arg.NoJSON(stopCommand(e)))
	return arg.NoJSON(cmd)
}

func stopCommand(e *env.Env) *cobra.Command {
	return &cobra.Command{
		Use: "stop", Short: "End the daemon; machines go on", Args: arg.Exactly(),
		Example: "  banger daemon stop",
		RunE:    func(cmd *cobra.Command, _ []string) error { return connect.Stop(cmd.Context(), e) },
	}
}

func config(e *env.Env) (c daemon.Config, err error) {
	machines, err := machine.Open(e.Paths.Data, e.Paths.Runtime)
	if err != nil {
		return c, err
	}
	if c.Images, err = store.Open(e.Paths.Data); err != nil {
		return c, err
	}
	if c.Kernels, err = kernel.Open(e.Paths.Data); err != nil {
		return c, err
	}
	self, err := os.Executable()
	if err != nil {
		return c, fmt.Errorf("find banger: %w", err)
	}
	level := slog.LevelInfo
	if e.Verbose {
		level = slog.LevelDebug
	}
	c.Machines = machines
	c.Supervisor = []string{self, "--data-root", e.Paths.Data, "supervise"}
	c.Version, c.DataRoot = e.Version, e.Paths.Data
	c.Log = slog.New(slog.NewTextHandler(e.Err, &slog.HandlerOptions{Level: level}))
	return c, nil
}
