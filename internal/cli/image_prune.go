package cli

import (
	"fmt"

	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/image/build"
	"github.com/banger-vm/banger/internal/image/pull"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"
)

func (a *app) imagePruneCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove images without a name and what only they need",
		Long: "Remove the images that have no name any more, and from the cache what no image\n" +
			"that is left was made from. With --all, remove every image and the whole cache.",
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.openStore()
			if err != nil {
				return err
			}
			unlock, err := s.Lock(cmd.Context())
			if err != nil {
				return err
			}
			defer unlock()
			freed, err := a.pruneImages(s, all)
			if err != nil {
				return err
			}
			keep, err := inUse(s)
			if err != nil {
				return err
			}
			unpacked, err := build.PruneLayers(a.paths.Cache, func(id digest.DiffID) bool { return keep[string(id)] })
			if err != nil {
				return err
			}
			cached, err := pull.OpenCache(a.paths.Cache).Prune(cmd.Context(), func(d digest.Digest) bool { return keep[string(d)] })
			if err != nil {
				return err
			}
			fmt.Fprintf(a.out, "Total reclaimed space: %s\n", units.BytesSize(float64(freed+unpacked+cached)))
			return s.Sweep()
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "remove images with a name too")
	return cmd
}

func (a *app) pruneImages(s *store.Store, all bool) (freed int64, err error) {
	images, damaged, err := s.Images()
	if err != nil {
		return 0, err
	}
	for _, d := range damaged {
		a.note("warning: %s", oneLine(d.Error()))
	}
	for _, img := range images {
		if len(img.Names) > 0 && !all {
			continue
		}
		freed += diskUse(s.DiskPath(img))
		if err := s.Remove(img); err != nil {
			return freed, err
		}
		fmt.Fprintf(a.out, "Deleted: %s\n", img.ID)
	}
	return freed, nil
}

// inUse returns the digests and diffIDs of all that the images of the store
// were made from.
func inUse(s *store.Store) (map[string]bool, error) {
	images, _, err := s.Images()
	if err != nil {
		return nil, err
	}
	keep := map[string]bool{}
	for _, img := range images {
		keep[string(img.ID)] = true
		for _, l := range img.Layers {
			keep[string(l.Digest)] = true
			keep[string(l.DiffID)] = true
		}
	}
	return keep, nil
}
