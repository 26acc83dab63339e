package imagecmd

import (
	"context"
	"fmt"
	"os"

	"github.com/banger-vm/banger/internal/base/publish"
	"github.com/banger-vm/banger/internal/base/sparse"
	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/fetch"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/spf13/cobra"
)

func exportCommand(e *env.Env) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:     "export NAME FILE",
		Short:   "Copy the disk of an image into a file",
		Long:    "Copy the disk of an image into a file, sparse, sharing its blocks where the file\nsystem can. FILE may be - for standard output.",
		Example: "  banger image export debian:12 disk.ext4",
		Args:    arg.Exactly("NAME", "FILE"), ValidArgsFunction: fetch.ImageNames(e),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := store.Open(e.Paths.Data)
			if err != nil {
				return err
			}
			img, err := fetch.FindImage(s, args[0])
			if err != nil {
				return err
			}
			disk, err := os.Open(s.DiskPath(img))
			if err != nil {
				return fmt.Errorf("image %s: %w", args[0], err)
			}
			defer disk.Close()
			if args[1] == "-" {
				return sparse.WriteTo(cmd.Context(), e.Out, disk)
			}
			return exportDisk(cmd.Context(), disk, args[1], force)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace FILE")
	return cmd
}

// exportDisk publishes a copy of disk as the file at path.
func exportDisk(ctx context.Context, disk *os.File, path string, force bool) error {
	if err := arg.CheckOutput(path, force); err != nil {
		return err
	}
	return publish.File(path, func(f *os.File) error { return sparse.Copy(ctx, f, disk) })
}
