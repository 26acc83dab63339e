package kernelcmd

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/exit"
	"github.com/banger-vm/banger/internal/cli/fetch"
	"github.com/banger-vm/banger/internal/cli/render"
	"github.com/banger-vm/banger/internal/kernel"
	"github.com/spf13/cobra"
)

// registerPull adds the flags of both commands that get a kernel.
func registerPull(cmd *cobra.Command, r *fetch.KernelRequest) {
	r.Flags.RegisterRead(cmd)
	flags := cmd.Flags()
	flags.StringVar(&r.Name, "name", "", "name of the kernel here (default the catalog's, or its release)")
	flags.StringVar(&r.Release, "release", "", "which kernel, where the source has several")
	flags.BoolVar(&r.Force, "force", false, "make it anew where it is there already")
}

func pullCommand(e *env.Env) *cobra.Command {
	var r fetch.KernelRequest
	cmd := &cobra.Command{
		Use:   "pull [NAME|SOURCE]",
		Short: "Get a kernel by its name in the catalog",
		Long: "Get a kernel by its name in the catalog, \"" + kernel.DefaultName + "\" where none is given: the one that\n" +
			"machines use. Names of your own go into $XDG_CONFIG_HOME/banger/kernels.toml.\n\n" + sourceHelp,
		Example: `  banger kernel pull
  banger kernel pull apt:linux-image-amd64 --name full`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return exit.Usagef("%s takes at most one NAME, got %d arguments", cmd.CommandPath(), len(args))
			}
			return nil
		},
		ValidArgsFunction: catalogNames(e),
	}
	registerPull(cmd, &r)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return pullKernel(cmd.Context(), e, &r, cmp.Or(strings.Join(args, ""), kernel.DefaultName))
	}
	return cmd
}

func importCommand(e *env.Env) *cobra.Command {
	var r fetch.KernelRequest
	cmd := &cobra.Command{
		Use:   "import SOURCE | import --kernel FILE [--config FILE] [--modules DIR]",
		Short: "Take a kernel from anywhere",
		Long:  "Take a kernel from anywhere.\n\n" + sourceHelp,
		Example: `  banger kernel import deb:linux-image-6.1.0-56-cloud-amd64.deb --name cloud
  banger kernel import --kernel bzImage --config .config --modules out
  banger kernel import docker://linuxkit/kernel:6.6.71`,
	}
	registerPull(cmd, &r)
	flags := cmd.Flags()
	flags.StringVar(&r.Files.Kernel, "kernel", "", "bzImage or ELF file of a kernel")
	flags.StringVar(&r.Files.Config, "config", "", "file that it was configured with")
	flags.StringVar(&r.Files.Modules, "modules", "", "folder of its modules, or one with lib/modules/RELEASE")
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		switch {
		case r.Files.Kernel == "" && len(args) != 1:
			return exit.Usagef("%s takes SOURCE or --kernel, got %d arguments", cmd.CommandPath(), len(args))
		case r.Files.Kernel != "" && len(args) != 0:
			return exit.Usagef("%s takes either SOURCE or --kernel", cmd.CommandPath())
		case r.Files.Kernel == "" && (r.Files.Config != "" || r.Files.Modules != ""):
			return exit.Usagef("--config and --modules go with --kernel")
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return pullKernel(cmd.Context(), e, &r, strings.Join(args, ""))
	}
	return cmd
}

func pullKernel(ctx context.Context, e *env.Env, r *fetch.KernelRequest, source string) error {
	if r.Name != "" && !kernel.IsName(r.Name) {
		return exit.Usagef("--name: not a kernel's name")
	}
	if r.Release != "" && !kernel.IsRelease(r.Release) {
		return exit.Usagef("--release: not a kernel's release")
	}
	s, err := kernel.Open(e.Paths.Data)
	if err != nil {
		return err
	}
	k, fresh, err := fetch.PullKernel(ctx, e, s, source, r)
	if err != nil {
		return err
	}
	return printPulled(e, k, fresh)
}

func printPulled(e *env.Env, k *kernel.Kernel, fresh bool) error {
	if !fresh {
		e.Note("%s: kernel is up to date", k.ShownName())
	}
	if e.JSON {
		return render.JSON(e.Out, &k.Manifest)
	}
	_, err := fmt.Fprintln(e.Out, k.ID)
	return err
}
