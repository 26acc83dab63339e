package cli

import (
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/spf13/cobra"
)

// inspectedImage is a record with what the host says of its disk.
type inspectedImage struct {
	*store.Image
	DiskPath string `json:"diskPath"`
	DiskUse  int64  `json:"diskUse"` // bytes on the host
}

func (a *app) imageInspectCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect NAME…",
		Short: "Show all that is known of images, as JSON",
		Args:  atLeastOne("NAME"), ValidArgsFunction: a.imageNames,
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := a.openStore()
			if err != nil {
				return err
			}
			out := []inspectedImage{}
			err = eachImage(args, func(ref string) error {
				img, err := findImage(s, ref)
				if err != nil {
					return err
				}
				path := s.DiskPath(img)
				out = append(out, inspectedImage{img, path, diskUse(path)})
				return nil
			})
			if printErr := a.printJSON(out); err == nil {
				err = printErr
			}
			return err
		},
	}
}
