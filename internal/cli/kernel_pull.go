package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/banger-vm/banger/internal/image/build"
	"github.com/banger-vm/banger/internal/kernel"
	"github.com/spf13/cobra"
)

// kernelFlags are the flags of both commands that get a kernel.
type kernelFlags struct {
	name    string
	release string
	force   bool
	files   kernel.Files
	build   buildFlags
}

func (f *kernelFlags) register(cmd *cobra.Command) {
	f.build.registerRead(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.name, "name", "", "name of the kernel here (default the catalog's, or its release)")
	flags.StringVar(&f.release, "release", "", "which kernel, where the source has several")
	flags.BoolVar(&f.force, "force", false, "make it anew where it is there already")
}

func (a *app) kernelPullCommand() *cobra.Command {
	var f kernelFlags
	cmd := &cobra.Command{
		Use:   "pull [NAME|SOURCE]",
		Short: "Get a kernel by its name in the catalog",
		Long: "Get a kernel by its name in the catalog, \"" + kernel.DefaultName + "\" where none is given: the one that\n" +
			"machines use. Names of your own go into $XDG_CONFIG_HOME/banger/kernels.toml.\n\n" + kernelSourceHelp,
		Example: `  banger kernel pull
  banger kernel pull apt:linux-image-amd64 --name full`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("%s takes at most one NAME, got %d arguments", cmd.CommandPath(), len(args))
			}
			return nil
		},
		ValidArgsFunction: a.catalogNames,
	}
	f.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.runKernelPull(cmd, &f, first(strings.Join(args, ""), kernel.DefaultName))
	}
	return cmd
}

func (a *app) kernelImportCommand() *cobra.Command {
	var f kernelFlags
	cmd := &cobra.Command{
		Use:   "import SOURCE | import --kernel FILE [--config FILE] [--modules DIR]",
		Short: "Take a kernel from anywhere",
		Long:  "Take a kernel from anywhere.\n\n" + kernelSourceHelp,
		Example: `  banger kernel import deb:linux-image-6.1.0-56-cloud-amd64_6.1.192-2_amd64.deb --name cloud
  banger kernel import --kernel arch/x86/boot/bzImage --config .config --modules out/lib/modules/6.18.0 --name mine
  banger kernel import docker://linuxkit/kernel:6.6.71`,
	}
	f.register(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.files.Kernel, "kernel", "", "bzImage or ELF file of a kernel")
	flags.StringVar(&f.files.Config, "config", "", "file that it was configured with")
	flags.StringVar(&f.files.Modules, "modules", "", "folder of its modules, or one with lib/modules/RELEASE")
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		switch {
		case f.files.Kernel == "" && len(args) != 1:
			return usagef("%s takes SOURCE or --kernel, got %d arguments", cmd.CommandPath(), len(args))
		case f.files.Kernel != "" && len(args) != 0:
			return usagef("%s takes either SOURCE or --kernel", cmd.CommandPath())
		case f.files.Kernel == "" && (f.files.Config != "" || f.files.Modules != ""):
			return usagef("--config and --modules go with --kernel")
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.runKernelPull(cmd, &f, strings.Join(args, "")) }
	return cmd
}

func (a *app) runKernelPull(cmd *cobra.Command, f *kernelFlags, what string) error {
	if f.name != "" && !kernel.IsName(f.name) {
		return usagef("--name: not a kernel's name")
	}
	if f.release != "" && !kernel.IsRelease(f.release) {
		return usagef("--release: not a kernel's release")
	}
	s, err := a.openKernels()
	if err != nil {
		return err
	}
	k, fresh, err := a.getKernel(cmd.Context(), s, f, what)
	if err != nil {
		return err
	}
	return a.printPulled(k, fresh)
}

// pullKernel gets the kernel that what means, for a command that needs it,
// and tells on the way.
func (a *app) pullKernel(ctx context.Context, s *kernel.Store, what string) (*kernel.Kernel, error) {
	k, _, err := a.getKernel(ctx, s, &kernelFlags{}, what)
	return k, err
}

func (a *app) getKernel(
	ctx context.Context, s *kernel.Store, f *kernelFlags, what string,
) (k *kernel.Kernel, fresh bool, err error) {
	o, err := f.options(a, what)
	if err != nil {
		return nil, false, err
	}
	p := a.startProgress()
	o.Build.Report = p.event
	o.Report = func(text string) { p.event(build.Event{Step: build.StepNotice, Text: oneLine(text)}) }
	k, fresh, err = s.Pull(ctx, what, f.name, o)
	p.close()
	if err == nil && fresh {
		err = a.noteKernel(k)
	}
	return k, fresh, err
}

func (f *kernelFlags) options(a *app, what string) (kernel.Options, error) {
	o := kernel.Options{Catalog: a.kernelCatalog(), Files: f.files, Release: f.release, Force: f.force}
	source := "tar:-" // no registry is asked
	if strings.HasPrefix(what, "docker://") {
		source = what
	}
	var err error
	o.Build, err = f.build.options(a, source)
	return o, err
}

// noteKernel says what has come, and what a machine will miss in it.
func (a *app) noteKernel(k *kernel.Kernel) error {
	a.noteWarnings(k.Warnings)
	features, err := k.Features()
	if err != nil {
		return err
	}
	for _, f := range features {
		if f.Required && f.State == kernel.Missing {
			a.note("warning: kernel lacks %s (%s), which every machine needs: %s", f.Name, f.Option, f.Purpose)
		}
	}
	modules := 0
	if k.Loadable != nil {
		modules = k.Loadable.Count
	}
	a.note("%s: kernel %s for %s with %d modules", k.ShownName(), k.Release, k.Arch, modules)
	return nil
}

func (a *app) printPulled(k *kernel.Kernel, fresh bool) error {
	if !fresh {
		a.note("%s: kernel is up to date", k.ShownName())
	}
	if a.json {
		return a.printJSON(&k.Manifest)
	}
	_, err := fmt.Fprintln(a.out, k.ID)
	return err
}
