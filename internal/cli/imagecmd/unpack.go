package imagecmd

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/banger-vm/banger/internal/base/publish"
	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/fetch"
	"github.com/banger-vm/banger/internal/cli/render"
	ext4 "github.com/banger-vm/banger/internal/image/ext4/read"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/image/unpack"
	"github.com/spf13/cobra"
)

func unpackCommand(e *env.Env) *cobra.Command {
	return &cobra.Command{
		Use:     "unpack NAME DIR",
		Short:   "Write the files of an image into a folder",
		Example: "  banger image unpack debian:12 ./debian",
		Long: "Write the files of an image into the folder DIR, which must be empty or not there yet.\n" +
			"Only root can give files to other users and make devices; for others, what is left out\n" +
			"is counted and named.",
		Args: arg.Exactly("NAME", "DIR"), ValidArgsFunction: fetch.ImageNames(e),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
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
			fs, err := ext4.Open(disk, img.Disk.Size)
			if err != nil {
				return fmt.Errorf("image %s: %w", args[0], err)
			}
			return unpackInto(e, cmd, fs, args[1])
		},
	}
}

// unpackInto writes the files into a scratch folder and renames it to dir when it
// is complete.
func unpackInto(e *env.Env, cmd *cobra.Command, fs *ext4.FS, dir string) error {
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
		render.Warnings(e, warnings)
		if err := os.Rename(tree, dir); err != nil {
			return err
		}
		if e.JSON {
			return render.JSON(e.Out, map[string]string{"folder": dir})
		}
		_, err = fmt.Fprintln(e.Out, dir)
		return err
	})
}
