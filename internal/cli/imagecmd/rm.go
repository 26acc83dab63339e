package imagecmd

import (
	"context"
	"fmt"
	"slices"

	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/fetch"
	"github.com/banger-vm/banger/internal/image/pull"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/spf13/cobra"
)

func removeCommand(e *env.Env) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm NAME…", Aliases: []string{"remove"},
		Short: "Remove images",
		Long: "Remove images. An image with several names loses the one that is given, and is\n" +
			"deleted with its last name.",
		Args: arg.AtLeastOne("NAME"), ValidArgsFunction: fetch.ImageNames(e),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := store.Open(e.Paths.Data)
			if err != nil {
				return err
			}
			return arg.Each(args, func(ref string) error { return removeImage(cmd.Context(), e, s, ref, force) })
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "delete an image given by ID that has several names")
	return cmd
}

func removeImage(ctx context.Context, e *env.Env, s *store.Store, ref string, force bool) error {
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
		fmt.Fprintf(e.Out, "Untagged: %s\n", pull.FamiliarName(name))
		return nil
	}
	if len(img.Names) > 1 && !force {
		return fmt.Errorf("image %s: has %d names, --force removes them all", ref, len(img.Names))
	}
	if err := s.Remove(img); err != nil {
		return err
	}
	for _, n := range img.Names {
		fmt.Fprintf(e.Out, "Untagged: %s\n", pull.FamiliarName(n))
	}
	fmt.Fprintf(e.Out, "Deleted: %s\n", img.ID)
	return nil
}
