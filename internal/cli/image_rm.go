package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/banger-vm/banger/internal/image/pull"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/spf13/cobra"
)

func (a *app) imageRemoveCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm NAME…", Aliases: []string{"remove"},
		Short: "Remove images",
		Long: "Remove images. An image with several names loses the one that is given, and is\n" +
			"deleted with its last name.",
		Args: atLeastOne("NAME"), ValidArgsFunction: a.imageNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.openStore()
			if err != nil {
				return err
			}
			return eachImage(args, func(ref string) error { return a.removeImage(cmd.Context(), s, ref, force) })
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "delete an image given by ID that has several names")
	return cmd
}

func (a *app) removeImage(ctx context.Context, s *store.Store, ref string, force bool) error {
	unlock, err := s.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	img, err := findImage(s, ref)
	if err != nil {
		return err
	}
	name := ref
	if !slices.Contains(img.Names, name) {
		name = pull.CanonicalName(ref)
	}
	byName := slices.Contains(img.Names, name)
	if byName && len(img.Names) > 1 {
		img.Names = slices.DeleteFunc(img.Names, func(n string) bool { return n == name })
		if err := s.Update(img); err != nil {
			return err
		}
		fmt.Fprintf(a.out, "Untagged: %s\n", pull.FamiliarName(name))
		return nil
	}
	if len(img.Names) > 1 && !force {
		return fmt.Errorf("image %s: has %d names, --force removes them all", ref, len(img.Names))
	}
	if err := s.Remove(img); err != nil {
		return err
	}
	for _, n := range img.Names {
		fmt.Fprintf(a.out, "Untagged: %s\n", pull.FamiliarName(n))
	}
	fmt.Fprintf(a.out, "Deleted: %s\n", img.ID)
	return nil
}
