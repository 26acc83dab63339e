package cli

import (
	"path/filepath"

	"github.com/banger-vm/banger/internal/kernel"
	"github.com/spf13/cobra"
)

// kernelSourceHelp explains SOURCE to users of kernel pull and import.
const kernelSourceHelp = `SOURCE is one of
  host[:RELEASE]               the kernel that this host runs, or another one installed here
  apt:PACKAGE[=VERSION]        a package and what it depends on, by the host's own apt-get
  deb:FILE[,FILE…]             packages that are files here
  bundle:FILE                  what kernel export wrote
  docker://REF, oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:TAG],
  docker-daemon:REF, tar:FILE  an image with /boot/vmlinuz-RELEASE, /boot/vmlinux or /kernel`

func (a *app) kernelCommand() *cobra.Command {
	return group("kernel", "Manage kernels",
		a.kernelPullCommand(), a.kernelImportCommand(), a.kernelListCommand(), a.kernelInspectCommand(),
		a.kernelRemoveCommand(), a.kernelExportCommand(),
	)
}

func (a *app) openKernels() (*kernel.Store, error) { return kernel.Open(a.paths.Data) }

// kernelCatalog is the user's own catalog file.
func (a *app) kernelCatalog() string {
	return filepath.Join(filepath.Dir(a.paths.Config), "kernels.toml")
}

// kernelNames completes the names of kernels in the store.
func (a *app) kernelNames(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	if err := a.prepare(cmd, nil); err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	s, err := a.openKernels()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	kernels, _, err := s.List()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, k := range kernels {
		names = append(names, k.Names...)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// catalogNames completes the names of the catalog.
func (a *app) catalogNames(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	if err := a.prepare(cmd, nil); err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	entries, err := kernel.Catalog(a.kernelCatalog())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name+"\t"+e.Summary)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
