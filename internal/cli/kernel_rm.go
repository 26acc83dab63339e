package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) kernelRemoveCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm NAME…", Aliases: []string{"remove"},
		Short: "Remove kernels",
		Long: "Remove kernels. A kernel with several names loses the one that is given, and is\n" +
			"deleted with its last name.",
		Args: atLeastOne("NAME"), ValidArgsFunction: a.kernelNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.openKernels()
			if err != nil {
				return err
			}
			return eachImage(args, func(ref string) error {
				k, deleted, err := s.Remove(cmd.Context(), ref, force)
				if err != nil {
					return err
				}
				if !deleted {
					fmt.Fprintf(a.out, "Untagged: %s\n", ref)
					return nil
				}
				for _, n := range k.Names {
					fmt.Fprintf(a.out, "Untagged: %s\n", n)
				}
				fmt.Fprintf(a.out, "Deleted: %s\n", k.ID)
				return nil
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "delete a kernel given by ID or release that has several names")
	return cmd
}
