package cli

import (
	"errors"
	"fmt"

	"github.com/banger-vm/banger/internal/image/pull"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/spf13/cobra"
)

func (a *app) imageCommand() *cobra.Command {
	return group("image", "Manage images",
		a.imagePullCommand(), a.imageImportCommand(), a.imageListCommand(), a.imageInspectCommand(),
		a.imageRemoveCommand(), a.imageExportCommand(), a.imageUnpackCommand(), a.imageVerifyCommand(),
		a.imagePruneCommand(),
	)
}

// group is a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q (see %s --help)", args[0], cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(commands...)
	return cmd
}

// findImage looks up an image by what the user calls it.
func findImage(s *store.Store, ref string) (*store.Image, error) {
	return s.Find(ref, pull.CanonicalName(ref))
}

// imageNames completes the names of images in the store.
func (a *app) imageNames(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	if err := a.prepare(cmd, nil); err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	s, err := a.openStore()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	images, _, err := s.Images()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, img := range images {
		for _, n := range img.Names {
			names = append(names, pull.FamiliarName(n))
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// eachImage runs do for every argument and goes on after an error, as rm(1)
// does; all errors come back.
func eachImage(refs []string, do func(ref string) error) error {
	var failed []error
	for _, ref := range refs {
		if err := do(ref); err != nil {
			failed = append(failed, err)
		}
	}
	switch len(failed) {
	case 0:
		return nil
	case 1:
		return failed[0]
	}
	return fmt.Errorf("%d of %d: failed: %w", len(failed), len(refs), errors.Join(failed...))
}
