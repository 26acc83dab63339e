package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"

	"github.com/banger-vm/banger/internal/base/xdg"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/spf13/cobra"
)

// app is what every command shares: the streams, the global flags and what
// the configuration file says.
type app struct {
	version  string
	in       io.Reader
	out, err io.Writer

	dataRoot string
	json     bool
	quiet    bool
	progress string
	verbose  bool

	paths  xdg.Paths
	config config
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "banger",
		Short: "Run any container image as a microVM",
		Long: "banger turns any OCI or Docker image into an exact, bootable ext4 root disk and runs\n" +
			"it as a microVM, without root, Docker or mounts.",
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: a.prepare,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q (see banger --help)", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%v (see %s --help)", err, cmd.CommandPath())
	})
	f := root.PersistentFlags()
	f.StringVar(&a.dataRoot, "data-root", "", "folder of images and machines (default $XDG_DATA_HOME/banger)")
	f.BoolVar(&a.json, "json", false, "print the result as JSON")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "print only the result")
	f.StringVar(&a.progress, "progress", "auto", "show progress as auto, plain, json or none")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "show progress as lines with the seconds that have passed")
	root.AddCommand(
		a.convertCommand(),
		a.imageCommand(),
		a.kernelCommand(),
		a.verifyCommand(),
		a.runCommand(),
		a.createCommand(),
		a.startCommand(),
		a.stopCommand(),
		a.killCommand(),
		a.restartCommand(),
		a.rmCommand(),
		a.renameCommand(),
		a.waitCommand(),
		a.pruneCommand(),
		a.psCommand(),
		a.inspectCommand(),
		a.statsCommand(),
		a.logsCommand(),
		a.attachCommand(),
		a.execCommand(),
		a.cpCommand(),
		a.sshCommand(),
		a.sshProxyCommand(),
		a.daemonCommand(),
		a.superviseCommand(),
		a.versionCommand(),
		a.doctorCommand(),
	)
	return root
}

// prepare reads the configuration before a command runs. Flags win over it.
func (a *app) prepare(cmd *cobra.Command, _ []string) error {
	var err error
	if a.paths, err = xdg.Default(); err != nil {
		return err
	}
	if a.config, err = readConfig(a.paths.Config); err != nil {
		return err
	}
	if a.dataRoot == "" {
		a.dataRoot = a.config.DataRoot
	}
	if a.dataRoot != "" {
		if a.paths.Data, err = filepath.Abs(a.dataRoot); err != nil {
			return fmt.Errorf("find data folder: %w", err)
		}
	}
	switch a.progress {
	case "auto", "plain", "json", "none":
		return nil
	}
	return usagef("--progress=%s: want auto, plain, json or none", a.progress)
}

func (a *app) openStore() (*store.Store, error) { return store.Open(a.paths.Data) }

// printJSON writes v as the result of a command.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// note says something that is neither result nor error.
func (a *app) note(format string, args ...any) {
	if !a.quiet {
		fmt.Fprintf(a.err, format+"\n", args...)
	}
}
