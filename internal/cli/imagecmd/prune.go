package imagecmd

import (
	"errors"
	"fmt"

	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/render"
	"github.com/banger-vm/banger/internal/image/build"
	"github.com/banger-vm/banger/internal/image/pull"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/spf13/cobra"
)

func pruneCommand(e *env.Env) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove images without a name and what only they need",
		Example: `  banger image prune
  banger image prune --all`,
		Long: "Remove the images that have no name any more, and from the cache what no image\n" +
			"that is left was made from. With --all, remove every image and the whole cache.",
		Args: arg.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := store.Open(e.Paths.Data)
			if err != nil {
				return err
			}
			unlock, err := s.Lock(cmd.Context())
			if err != nil {
				return err
			}
			defer unlock()
			removals := render.NewRemovals(e)
			freed, err := pruneImages(e, s, removals, all)
			if err != nil {
				return err
			}
			keep, err := inUse(s)
			if err != nil {
				return err
			}
			unpacked, err := build.PruneLayers(e.Paths.Cache, func(id digest.DiffID) bool { return keep[string(id)] })
			if err != nil {
				return err
			}
			cached, err := pull.OpenCache(e.Paths.Cache).Prune(cmd.Context(), func(d digest.Digest) bool { return keep[string(d)] })
			if err != nil {
				return err
			}
			return errors.Join(printPruned(e, removals, freed+unpacked+cached), s.Sweep())
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "remove images with a name too")
	return cmd
}

// printPruned prints the bytes that image prune has freed, as JSON with the images.
func printPruned(e *env.Env, removals *render.Removals, freed int64) error {
	if !e.JSON {
		_, err := fmt.Fprintf(e.Out, "Total reclaimed space: %s\n", render.Bytes(freed))
		return err
	}
	return render.JSON(e.Out, struct {
		Removed []render.Removal `json:"removed"`
		Freed   int64            `json:"freed"` // bytes
	}{removals.List(), freed})
}

func pruneImages(e *env.Env, s *store.Store, removals *render.Removals, all bool) (freed int64, err error) {
	images, damaged, err := s.Images()
	if err != nil {
		return 0, err
	}
	for _, d := range damaged {
		e.Note("warning: %s", render.OneLine(d.Error()))
	}
	for _, img := range images {
		if len(img.Names) > 0 && !all {
			continue
		}
		freed += render.DiskUse(s.DiskPath(img))
		if err := s.Remove(img); err != nil {
			return freed, err
		}
		removals.Deleted(string(img.ID))
	}
	return freed, nil
}

// inUse returns the digests and the diffIDs of all layers of the images in the
// store.
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
