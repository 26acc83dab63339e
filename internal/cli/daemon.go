package cli

import (
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/banger-vm/banger/internal/daemon"
	"github.com/banger-vm/banger/internal/machine"
	"github.com/spf13/cobra"
)

func (a *app) daemonCommand() *cobra.Command {
	var idle time.Duration
	cmd := &cobra.Command{
		Use:   "daemon [FLAGS]",
		Short: "Serve machines to other commands",
		Long: "Serve machines to other commands, which start it when they need it. It listens on a\n" +
			"socket that only this user can reach, or on the one that systemd passes on. Machines\n" +
			"go on when it ends. Its log goes to standard error; -v has more of it.",
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if idle < 0 {
				return usagef("--idle-timeout=%v is negative", idle)
			}
			c, err := a.daemonConfig()
			if err != nil {
				return err
			}
			c.Idle = idle
			return daemon.Serve(cmd.Context(), c)
		},
	}
	cmd.Flags().DurationVar(&idle, "idle-timeout", 0, "end when nothing has been asked for this time, as 5m; 0 is never")
	cmd.AddCommand(a.daemonInstallCommand(), a.daemonStopCommand())
	return cmd
}

func (a *app) daemonStopCommand() *cobra.Command {
	return &cobra.Command{
		Use: "stop", Short: "End the daemon; machines go on", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.endDaemon(cmd.Context()) },
	}
}

func (a *app) daemonConfig() (c daemon.Config, err error) {
	machines, err := machine.Open(a.paths.Data, a.paths.Runtime)
	if err != nil {
		return c, err
	}
	if c.Images, err = a.openStore(); err != nil {
		return c, err
	}
	if c.Kernels, err = a.openKernels(); err != nil {
		return c, err
	}
	self, err := os.Executable()
	if err != nil {
		return c, fmt.Errorf("find banger: %w", err)
	}
	level := slog.LevelInfo
	if a.verbose {
		level = slog.LevelDebug
	}
	c.Machines = machines
	c.Supervisor = []string{self, "--data-root", a.paths.Data, "supervise"}
	c.Version, c.DataRoot = a.version, a.paths.Data
	c.Log = slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: level}))
	return c, nil
}
