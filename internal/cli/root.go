package cli

import (
	"errors"
	"fmt"

	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/daemoncmd"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/exit"
	"github.com/banger-vm/banger/internal/cli/imagecmd"
	"github.com/banger-vm/banger/internal/cli/kernelcmd"
	"github.com/banger-vm/banger/internal/cli/machinecmd"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// flagError returns the message for an error of a flag's value, in the user's terms
// and not in those of package strconv.
func flagError(cmd *cobra.Command, err error) string {
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				names = append(names, "--"+f.Name)
			}
		})
		return err.Error() + arg.Meant("--"+unknown.GetSpecifiedName(), names)
	}
	value, ok := errors.AsType[*pflag.InvalidValueError](err)
	if !ok {
		return err.Error()
	}
	want := map[string]string{"int": "a whole number", "duration": "a time with its unit, as 30s or 5m", "bool": "true or false"}[value.GetFlag().Value.Type()]
	if want == "" {
		return err.Error()
	}
	return fmt.Sprintf("--%s=%s: want %s", value.GetFlag().Name, value.GetValue(), want)
}

// rootCommand returns the command that holds all other commands. It parses the
// global flags into e.
func rootCommand(e *env.Env) *cobra.Command {
	root := &cobra.Command{
		Use:   "banger",
		Short: "Run any container image as a microVM",
		Long: "banger turns any OCI or Docker image into an exact, bootable ext4 root disk and runs\n" +
			"it as a microVM, without root, Docker or mounts.",
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if e.JSON && arg.RefusesJSON(cmd) {
				return exit.Usagef("%s has no result to print as JSON: leave out --json", cmd.CommandPath())
			}
			return e.Prepare()
		},
		Args: arg.Subcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return exit.Usagef("%s (see %s --help)", flagError(cmd, err), cmd.CommandPath())
	})
	f := root.PersistentFlags()
	f.StringVar(&e.DataRoot, "data-root", "", "folder of images and machines (default $XDG_DATA_HOME/banger)")
	f.BoolVar(&e.JSON, "json", false, "print the result as JSON")
	f.BoolVarP(&e.Quiet, "quiet", "q", false, "print only the result")
	f.StringVar(&e.Progress, "progress", "auto", "show progress as auto, plain, json or none")
	f.BoolVarP(&e.Verbose, "verbose", "v", false, "show progress as lines with the seconds that have passed")
	root.Example = "  banger run --rm -it debian:12 bash\n  banger ps"
	const machines, images = "machines", "images"
	root.AddGroup(&cobra.Group{ID: machines, Title: "Machines"}, &cobra.Group{ID: images, Title: "Images and kernels"})
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
		}
		root.AddCommand(commands...)
	}
	add(machines, machinecmd.Commands(e)...)
	add(images, imagecmd.Commands(e)...)
	add(images, kernelcmd.Command(e))
	add("", daemoncmd.Command(e), versionCommand(e))
	setHelp(root)
	return root
}
