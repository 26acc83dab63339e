package kernelcmd

import (
	"errors"

	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/render"
	"github.com/banger-vm/banger/internal/kernel"
	"github.com/spf13/cobra"
)

func removeCommand(e *env.Env) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm NAME…", Aliases: []string{"remove"},
		Short:   "Remove kernels",
		Example: "  banger kernel rm full",
		Long: "Remove kernels. A kernel with several names loses the one that is given, and is\n" +
			"deleted with its last name.",
		Args: arg.AtLeastOne("NAME"), ValidArgsFunction: kernelNames(e),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := kernel.Open(e.Paths.Data)
			if err != nil {
				return err
			}
			removals := render.NewRemovals(e)
			err = arg.Each(args, func(ref string) error {
				k, deleted, err := s.Remove(cmd.Context(), ref, force)
				if err != nil {
					return err
				}
				if !deleted {
					removals.Untagged(ref)
					return nil
				}
				for _, n := range k.Names {
					removals.Untagged(n)
				}
				removals.Deleted(string(k.ID))
				return nil
			})
			return errors.Join(err, removals.Close())
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "delete a kernel given by ID or release that has several names")
	return cmd
}
