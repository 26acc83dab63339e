package imagecmd

import (
	"errors"

	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/fetch"
	"github.com/banger-vm/banger/internal/cli/render"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/spf13/cobra"
)

// inspectedImage is the record of an image, with the path of its disk and the
// space that the disk takes.
type inspectedImage struct {
	*store.Image
	DiskPath string `json:"diskPath"`
	DiskUse  int64  `json:"diskUse"` // bytes on the host
}

func inspectCommand(e *env.Env) *cobra.Command {
	return &cobra.Command{
		Use:     "inspect NAME…",
		Short:   "Show all that is known of images, as JSON",
		Example: "  banger image inspect debian:12",
		Args:    arg.AtLeastOne("NAME"), ValidArgsFunction: fetch.ImageNames(e),
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := store.Open(e.Paths.Data)
			if err != nil {
				return err
			}
			out := []inspectedImage{}
			err = arg.Each(args, func(ref string) error {
				img, err := fetch.FindImage(s, ref)
				if err != nil {
					return err
				}
				path := s.DiskPath(img)
				out = append(out, inspectedImage{img, path, render.DiskUse(path)})
				return nil
			})
			if err != nil && len(out) == 0 {
				return err
			}
			return errors.Join(err, render.JSON(e.Out, out))
		},
	}
}
