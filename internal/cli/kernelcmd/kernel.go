// Package kernelcmd has the commands that deal with kernels.
package kernelcmd

import (
	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/kernel/source"
	"github.com/spf13/cobra"
)

// sourceHelp explains SOURCE in the help of kernel pull and import.
const sourceHelp = `SOURCE is one of
  host[:RELEASE]               the kernel that this host runs, or another here
  apt:PACKAGE[=VERSION]        a package and what it needs, by this host's apt
  deb:FILE[,FILE…]             packages that are files here
  bundle:FILE                  what kernel export wrote
  docker://REF, oci:DIR[:TAG], oci-archive:FILE[:TAG],
  docker-archive:FILE[:TAG],
  docker-daemon:REF, tar:FILE  an image with /boot/vmlinuz-RELEASE,
                               /boot/vmlinux or /kernel`

// Command returns the kernel group.
func Command(e *env.Env) *cobra.Command {
	return arg.Group("kernel", "Manage kernels", "  banger kernel pull\n  banger kernel ls",
		pullCommand(e), importCommand(e), listCommand(e), inspectCommand(e), removeCommand(e), arg.NoJSON(exportCommand(e)),
	)
}

// kernelNames returns a completion by the names of the kernels in the store.
func kernelNames(e *env.Env) cobra.CompletionFunc {
	return arg.Complete(e, func() ([]string, error) {
		s, err := kernel.Open(e.Paths.Data)
		if err != nil {
			return nil, err
		}
		kernels, _, err := s.List()
		if err != nil {
			return nil, err
		}
		var names []string
		for _, k := range kernels {
			names = append(names, k.Names...)
		}
		return names, nil
	})
}

// catalogNames returns a completion by the names of the catalog.
func catalogNames(e *env.Env) cobra.CompletionFunc {
	return arg.Complete(e, func() ([]string, error) {
		entries, err := source.Catalog(e.KernelCatalog())
		if err != nil {
			return nil, err
		}
		var names []string
		for _, entry := range entries {
			names = append(names, entry.Name+"\t"+entry.Summary)
		}
		return names, nil
	})
}
