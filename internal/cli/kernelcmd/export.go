package kernelcmd

import (
	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/exit"
	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/kernel/source"
	"github.com/spf13/cobra"
)

func exportCommand(e *env.Env) *cobra.Command {
	var force bool
	var format string
	cmd := &cobra.Command{
		Use:   "export NAME FILE",
		Short: "Write a kernel into one file",
		Long: "Write a kernel with its configuration and modules into one file that kernel import takes:\n" +
			"as a tar (bundle:FILE), or with --format=oci as an image (oci-archive:FILE), which other\n" +
			"tools can push to a registry. A tar may go to standard output, written -.",
		Example: "  banger kernel export default kernel.tar",
		Args:    arg.Exactly("NAME", "FILE"), ValidArgsFunction: kernelNames(e),
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != source.FormatTar && format != source.FormatOCI {
				return exit.Usagef("--format=%s: want %s or %s", format, source.FormatTar, source.FormatOCI)
			}
			s, err := kernel.Open(e.Paths.Data)
			if err != nil {
				return err
			}
			k, err := s.Find(args[0])
			if err != nil {
				return err
			}
			if args[1] == "-" {
				if format != source.FormatTar {
					return exit.Usagef("only --format=%s goes to standard output", source.FormatTar)
				}
				return source.WriteBundle(cmd.Context(), e.Out, k)
			}
			if err := arg.CheckOutput(args[1], force); err != nil {
				return err
			}
			return source.Export(cmd.Context(), k, args[1], format)
		},
	}
	cmd.Flags().StringVar(&format, "format", source.FormatTar, "form of the file: tar or oci")
	cmd.Flags().BoolVar(&force, "force", false, "replace FILE")
	return cmd
}
