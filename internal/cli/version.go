package cli

import (
	"fmt"
	"runtime"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/connect"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/render"
	"github.com/spf13/cobra"
)

func versionCommand(e *env.Env) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Show the version",
		Example: "  banger version",
		Args:    arg.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			running, err := connect.Running(cmd.Context(), e)
			if err != nil {
				e.Note("warning: %s", render.OneLine(err.Error()))
			}
			v := struct {
				Version  string    `json:"version"`
				Go       string    `json:"go"`
				Platform string    `json:"platform"`
				API      int       `json:"api"`              // version of the protocol
				Daemon   *api.Info `json:"daemon,omitempty"` // nil if none runs
			}{e.Version, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH, api.Version, running}
			if e.JSON {
				return render.JSON(e.Out, v)
			}
			_, err = fmt.Fprintf(e.Out, "banger %s (%s, %s)\n", v.Version, v.Go, v.Platform)
			if err == nil && running != nil {
				_, err = fmt.Fprintf(e.Out, "daemon %s (protocol %d, process %d)\n", running.Version, running.API, running.PID)
			}
			return err
		},
	}
}
