package cli

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/internal/base/publish"
	ext4 "github.com/banger-vm/banger/internal/image/ext4/read"
	"github.com/banger-vm/banger/internal/image/unpack"
)

func (a *app) imageUnpackCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "unpack NAME DIR",
		Short: "Write the files of an image into a folder",
		Long: "Write the files of an image into the folder DIR, which must be empty or not there yet.\n" +
			"Only root can give files to other users and make devices; for others, what is left out\n" +
			"is counted and named.",
		Args: exactly("NAME", "DIR"), ValidArgsFunction: a.imageNames,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
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
			fs, err := ext4.Open(disk, img.Disk.Size)
			if err != nil {
				return fmt.Errorf("image %s: %w", args[0], err)
			}
			return a.unpackInto(cmd, fs, args[1])
		},
	}
}

// unpackInto fills a scratch folder and gives it its name when it is whole.
func (a *app) unpackInto(cmd *cobra.Command, fs *ext4.FS, dir string) error {
	if left, err := os.ReadDir(dir); err == nil && len(left) > 0 {
		return fmt.Errorf("%s: folder is not empty", dir)
	}
	return publish.InScratch(filepath.Dir(filepath.Clean(dir)), func(scratch string) error {
		tree := filepath.Join(scratch, "tree")
		if err := os.Mkdir(tree, 0o755); err != nil {
			return err
		}
		warnings, err := unpack.Into(cmd.Context(), fs, tree)
		if err != nil {
			return err
		}
		a.noteWarnings(warnings)
		if err := os.Rename(tree, dir); err != nil {
			return err
		}
		_, err = fmt.Fprintln(a.out, dir)
		return err
	})
}
