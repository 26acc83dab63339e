// Package arg checks and completes the arguments of a command line.
package arg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/banger-vm/banger/internal/base/similar"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/exit"
	"github.com/banger-vm/banger/internal/image/build"
	"github.com/spf13/cobra"
)

// Exactly checks that a command has the arguments that names lists.
func Exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != len(names) {
			return exit.Usagef("%s takes %s, got %d arguments", cmd.CommandPath(), list(names), len(args))
		}
		return nil
	}
}

// AtLeastOne checks that a command has one argument or more.
func AtLeastOne(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return exit.Usagef("%s takes at least one %s", cmd.CommandPath(), name)
		}
		return nil
	}
}

func list(names []string) string {
	if len(names) == 0 {
		return "no arguments"
	}
	return strings.Join(names, " and ")
}

// Subcommand refuses an argument: cobra passes on only a word that is no
// subcommand.
func Subcommand(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		var names []string
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				names = append(append(names, c.Name()), c.Aliases...)
			}
		}
		return exit.Usagef("unknown command %q%s (see %s --help)", args[0], Meant(args[0], names), cmd.CommandPath())
	}
	return nil
}

// Meant returns the end of a message that asks for the name that is nearest to word, or
// "" if none is near.
func Meant(word string, names []string) string {
	if name := similar.Nearest(word, names); name != "" {
		return "; did you mean " + name + "?"
	}
	return ""
}

// Group returns a command that only holds other commands.
func Group(use, short, example string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Example: example, Args: Subcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(commands...)
	return cmd
}

const jsonKey = "json"

// NoJSON marks a command that has no result to print as JSON, and returns it. The global
// flag --json is an error there.
func NoJSON(cmd *cobra.Command) *cobra.Command {
	if cmd.Annotations == nil {
		cmd.Annotations = map[string]string{}
	}
	cmd.Annotations[jsonKey] = "refused"
	return cmd
}

// RefusesJSON reports whether a command has no result to print as JSON: NoJSON has marked
// it, or it only prints help or a script for a shell.
func RefusesJSON(cmd *cobra.Command) bool {
	return cmd.Annotations[jsonKey] != "" || cmd.HasSubCommands() || cmd.Name() == "help" || cmd.HasParent() && cmd.Parent().Name() == "completion"
}

// Complete returns the completion of an argument by the names that list
// returns. It prepares e again, because cobra parses the flags of a command to
// complete after PersistentPreRunE.
func Complete(e *env.Env, list func() ([]string, error)) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		if err := e.Prepare(); err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		names, err := list()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// Each calls do for every argument and continues after an error, as rm(1)
// does. It returns all errors as one.
func Each(args []string, do func(arg string) error) error {
	var failed []error
	for _, arg := range args {
		if err := do(arg); err != nil {
			failed = append(failed, err)
		}
	}
	switch len(failed) {
	case 0:
		return nil
	case 1:
		return failed[0]
	}
	return fmt.Errorf("%d of %d: failed: %w", len(failed), len(args), errors.Join(failed...))
}

// CheckOutput checks that a command may write a new file at path. It returns
// build.ErrExists if a file is there and force is not set, and any error of
// the lookup.
func CheckOutput(path string, force bool) error {
	switch _, err := os.Lstat(path); {
	case err == nil && !force:
		return fmt.Errorf("%s: %w", path, build.ErrExists)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return nil
}
