package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/banger-vm/banger/internal/base/atomicfile"
	"github.com/banger-vm/banger/internal/base/sparse"
	"github.com/banger-vm/banger/internal/image/store"
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
func exportDisk(ctx context.Context, disk *os.File, path string, force bool) (err error) {
	if err := mayExport(path, force); err != nil {
		return err
	}
	parent := filepath.Dir(path)
	if err := store.SweepScratch(parent); err != nil {
		return err
	}
	scratch, err := store.NewScratch(parent)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, scratch.Remove()) }()
	copied, err := os.Create(filepath.Join(scratch.Path, "disk"))
	if err != nil {
		return err
	}
	defer copied.Close()
	if err := sparse.Copy(ctx, copied, disk); err != nil {
		return err
	}
	if err := copied.Sync(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return atomicfile.Rename(copied.Name(), path)
}
