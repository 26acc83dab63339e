package cli

import (
	"fmt"
	"runtime"

	"github.com/banger-vm/banger/api"
	"github.com/spf13/cobra"
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show the version",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			running, err := a.runningDaemon(cmd.Context())
			if err != nil {
				a.note("warning: %s", oneLine(err.Error()))
			}
			v := struct {
				Version  string    `json:"version"`
				Go       string    `json:"go"`
				Platform string    `json:"platform"`
				API      int       `json:"api"`              // the protocol's version
				Daemon   *api.Info `json:"daemon,omitempty"` // where one runs
			}{a.version, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH, api.Version, running}
			if a.json {
				return a.printJSON(v)
			}
			_, err = fmt.Fprintf(a.out, "banger %s (%s, %s)\n", v.Version, v.Go, v.Platform)
			if err == nil && running != nil {
				_, err = fmt.Fprintf(a.out, "daemon %s (protocol %d, process %d)\n", running.Version, running.API, running.PID)
			}
			return err
		},
	}
}
