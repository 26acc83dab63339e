package cli

import (
	"context"
	"fmt"
	"os"

	"github.com/banger-vm/banger/internal/base/publish"
	"github.com/banger-vm/banger/internal/base/sparse"
	"github.com/spf13/cobra"
)

func (a *app) imageExportCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:     "export NAME FILE",
		Short:   "Copy the disk of an image into a file",
		Long:    "Copy the disk of an image into a file, sparse, sharing its blocks where the file\nsystem can. FILE may be - for standard output.",
		Example: "  banger image export debian:12 disk.ext4",
		Args:    exactly("NAME", "FILE"), ValidArgsFunction: a.imageNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.openStore()
			if err != nil {
				return err
			}
			img, err := findImage(s, args[0])
			if err != nil {
				return err
			}
			disk, err := os.Open(s.DiskPath(img))
			if err != nil {
				return fmt.Errorf("image %s: %w", args[0], err)
			}
			defer disk.Close()
			if args[1] == "-" {
				return sparse.WriteTo(cmd.Context(), a.out, disk)
			}
			return exportDisk(cmd.Context(), disk, args[1], force)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace FILE")
	return cmd
}

// exportDisk publishes a copy of disk as the file path.
func exportDisk(ctx context.Context, disk *os.File, path string, force bool) error {
	if err := mayExport(path, force); err != nil {
		return err
	}
	return publish.File(path, func(f *os.File) error { return sparse.Copy(ctx, f, disk) })
}
