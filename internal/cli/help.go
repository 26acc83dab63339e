package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/render"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// columns is the width of help texts.
const columns = 80

// setHelp gives the commands below root help texts of 80 columns, with their flags in
// groups.
func setHelp(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.Example = "  banger help run"
		case "completion":
			c.Example = "  banger completion bash >~/.local/share/bash-completion/completions/banger"
			for _, shell := range c.Commands() {
				shell.Example = "  banger completion " + shell.Name()
			}
		}
	}
	root.SetUsageFunc(func(cmd *cobra.Command) error {
		_, err := fmt.Fprint(cmd.OutOrStderr(), usage(cmd))
		return err
	})
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) {
		about := cmd.Long
		if about == "" {
			about = cmd.Short + "."
		}
		// An error of the output is kept by it.
		fmt.Fprint(cmd.OutOrStdout(), wrapText(about), "\n\n", usage(cmd))
	})
}

// wrapText wraps the paragraphs of a text. A line that begins with space is kept as it is.
func wrapText(text string) string {
	var out, paragraph []string
	end := func() {
		if len(paragraph) > 0 {
			out = append(out, render.Wrap(strings.Join(paragraph, " "), columns)...)
			paragraph = nil
		}
	}
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		if line != "" && line[0] != ' ' && line[0] != '\t' {
			paragraph = append(paragraph, line)
			continue
		}
		end()
		out = append(out, line)
	}
	end()
	return strings.Join(out, "\n")
}

// usage returns the usage of a command, which follows its description.
func usage(cmd *cobra.Command) string {
	var b strings.Builder
	fmt.Fprintln(&b, "Usage:")
	if cmd.Runnable() && (cmd.HasParent() || !cmd.HasAvailableSubCommands()) {
		for i, line := range render.Wrap(cmd.UseLine(), columns-len("    ")) {
			fmt.Fprintf(&b, "%s%s\n", []string{"  ", "    "}[min(i, 1)], line)
		}
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "  %s [command]\n", cmd.CommandPath())
	}
	if len(cmd.Aliases) > 0 {
		fmt.Fprintf(&b, "\nAliases:\n  %s\n", cmd.NameAndAliases())
	}
	if cmd.HasExample() {
		fmt.Fprintf(&b, "\nExamples:\n%s\n", cmd.Example)
	}
	writeCommands(&b, cmd)
	writeFlags(&b, "Flags", cmd.LocalFlags())
	writeFlags(&b, "Global flags", cmd.InheritedFlags())
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\n%s [command] --help shows more about a command.\n", cmd.CommandPath())
	}
	return b.String()
}

// writeCommands writes the subcommands of cmd, in the groups that cmd has.
func writeCommands(b *strings.Builder, cmd *cobra.Command) {
	if !cmd.HasAvailableSubCommands() {
		return
	}
	const padding = 12 // characters of the longest name
	write := func(title, group string) {
		heading := "\n" + title + ":\n"
		for _, c := range cmd.Commands() {
			if c.GroupID == group && (c.IsAvailableCommand() || c.Name() == "help") {
				fmt.Fprintf(b, "%s  %-*s %s\n", heading, padding, c.Name(), c.Short)
				heading = ""
			}
		}
	}
	for _, g := range cmd.Groups() {
		write(g.Title, g.ID)
	}
	title := "Commands"
	if len(cmd.Groups()) > 0 {
		title = "Other commands"
	}
	write(title, "")
}

// writeFlags writes flags in their groups, which arg.FlagGroup has set, those without a
// group last and under the title.
func writeFlags(b *strings.Builder, title string, flags *pflag.FlagSet) {
	groups := map[string]*pflag.FlagSet{}
	var titles []string
	flags.VisitAll(func(f *pflag.Flag) {
		group := arg.GroupOf(f)
		if groups[group] == nil {
			groups[group] = pflag.NewFlagSet(group, pflag.ContinueOnError)
			groups[group].SortFlags = flags.SortFlags
			titles = append(titles, group)
		}
		groups[group].AddFlag(f)
	})
	slices.SortFunc(titles, func(a, b string) int { return arg.CompareGroups(a, b) })
	for _, group := range titles {
		if !groups[group].HasAvailableFlags() {
			continue
		}
		heading := group
		if group == "" {
			heading = title
		}
		fmt.Fprintf(b, "\n%s:\n%s", heading, groups[group].FlagUsagesWrapped(columns))
	}
}
