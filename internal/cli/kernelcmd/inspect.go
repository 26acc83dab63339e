package kernelcmd

import (
	"errors"

	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/render"
	"github.com/banger-vm/banger/internal/kernel"
	"github.com/spf13/cobra"
)

// inspectedKernel is the manifest of a kernel, with its paths, the space that it
// takes, and its features.
type inspectedKernel struct {
	*kernel.Manifest
	Folder   string           `json:"folder"`
	BootPath string           `json:"bootPath"`
	DiskUse  int64            `json:"diskUse"` // bytes on the host
	Features []kernel.Feature `json:"features"`
}

func inspectCommand(e *env.Env) *cobra.Command {
	return &cobra.Command{
		Use:     "inspect NAME…",
		Short:   "Show all that is known of kernels, as JSON",
		Example: "  banger kernel inspect default",
		Long: "Show all that is known of kernels, as JSON. Under features stands what banger uses of\n" +
			"a kernel, and whether this one has it built in, as a module, or not at all.",
		Args: arg.AtLeastOne("NAME"), ValidArgsFunction: kernelNames(e),
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := kernel.Open(e.Paths.Data)
			if err != nil {
				return err
			}
			out := []inspectedKernel{}
			err = arg.Each(args, func(ref string) error {
				k, err := s.Find(ref)
				if err != nil {
					return err
				}
				features, err := k.Features()
				if err != nil {
					return err
				}
				out = append(out, inspectedKernel{&k.Manifest, k.Dir(), k.BootPath(), kernelUse(k), features})
				return nil
			})
			if err != nil && len(out) == 0 {
				return err
			}
			return errors.Join(err, render.JSON(e.Out, out))
		},
	}
}
