package imagecmd

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/fetch"
	"github.com/banger-vm/banger/internal/cli/render"
	"github.com/banger-vm/banger/internal/image/pull"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/spf13/cobra"
)

func removeCommand(e *env.Env) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm NAME…", Aliases: []string{"remove"},
		Short:   "Remove images",
		Example: "  banger image rm debian:12",
		Long: "Remove images. An image with several names loses the one that is given, and is\n" +
			"deleted with its last name. Its layers stay in the cache for the next pull: banger\n" +
			"image prune drops those that no image needs.",
		Args: arg.AtLeastOne("NAME"), ValidArgsFunction: fetch.ImageNames(e),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := store.Open(e.Paths.Data)
			if err != nil {
				return err
			}
			removals := render.NewRemovals(e)
			err = arg.Each(args, func(ref string) error { return removeImage(cmd.Context(), e, s, removals, ref, force) })
			return errors.Join(err, removals.Close())
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "delete an image given by ID that has several names")
	return cmd
}

func removeImage(ctx context.Context, e *env.Env, s *store.Store, removals *render.Removals, ref string, force bool) error {
	unlock, err := s.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	img, err := fetch.FindImage(s, ref)
	if err != nil {
		return err
	}
	name := ref
	for _, full := range pull.CanonicalNames(ref) {
		if !slices.Contains(img.Names, name) {
			name = full
		}
	}
	byName := slices.Contains(img.Names, name)
	if byName && len(img.Names) > 1 {
		img.Names = slices.DeleteFunc(img.Names, func(n string) bool { return n == name })
		if err := s.Update(img); err != nil {
			return err
		}
		removals.Untagged(pull.FamiliarName(name))
		return nil
	}
	if len(img.Names) > 1 && !force {
		return fmt.Errorf("image %s: has %d names, --force removes them all", ref, len(img.Names))
	}
	if err := s.Remove(img); err != nil {
		return err
	}
	for _, n := range img.Names {
		removals.Untagged(pull.FamiliarName(n))
	}
	removals.Deleted(string(img.ID))
	e.Note("its layers stay in the cache: banger image prune drops those that no image needs")
	return nil
}
