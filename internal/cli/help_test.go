package cli

import (
	"bytes"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/spf13/cobra"
)

// jsonTable says of every command whether it obeys --json or refuses it. run obeys it
// with -d, and start without -a. The script json.txtar runs the commands that obey.
func jsonTable() map[string]bool {
	table := map[string]bool{}
	for obeys, paths := range map[bool]string{
		true: `run create start stop kill restart rm rename wait prune ps inspect stats logs doctor convert verify version
			image/pull image/import image/ls image/inspect image/rm image/unpack image/verify image/prune
			kernel/pull kernel/import kernel/ls kernel/inspect kernel/rm`,
		false: `attach exec cp ssh ssh-proxy supervise daemon daemon/install daemon/stop image image/export kernel kernel/export
			help completion completion/bash completion/zsh completion/fish completion/powershell`,
	} {
		for _, path := range strings.Fields(paths) {
			table["banger "+strings.ReplaceAll(path, "/", " ")] = obeys
		}
	}
	table["banger"] = false
	return table
}

// everyCommand calls do for each command of the tree.
func everyCommand(cmd *cobra.Command, do func(*cobra.Command)) {
	do(cmd)
	for _, c := range cmd.Commands() {
		everyCommand(c, do)
	}
}

func newRoot() *cobra.Command {
	return rootCommand(&env.Env{Version: "v1", In: strings.NewReader(""), Out: io.Discard, Err: io.Discard})
}

// TestEveryCommand checks the help text of every command, and that the table of --json
// is complete.
func TestEveryCommand(t *testing.T) {
	table, seen := jsonTable(), map[string]bool{}
	everyCommand(newRoot(), func(cmd *cobra.Command) {
		path := cmd.CommandPath()
		seen[path] = true
		if obeys, ok := table[path]; !ok || obeys == arg.RefusesJSON(cmd) {
			t.Errorf("%s: --json is refused: %v; the table has %v, %v", path, arg.RefusesJSON(cmd), obeys, ok)
		}
		if cmd.Hidden {
			return
		}
		var out bytes.Buffer
		cmd.SetOut(&out)
		if err := cmd.Help(); err != nil {
			t.Fatal(err)
		}
		text := out.String()
		for line := range strings.Lines(text) {
			line = strings.TrimSuffix(line, "\n")
			if utf8.RuneCountInString(line) > columns || strings.HasSuffix(line, " ") || strings.Contains(line, "\t") && !strings.Contains(path, "completion") {
				t.Errorf("%s --help: %q", path, line)
			}
		}
		if strings.Count(text, "[flags]") > 1 || strings.Contains(text, "[FLAGS]") {
			t.Errorf("%s --help: more than one [flags]:\n%s", path, text)
		}
		if !strings.Contains(text, "\nExamples:\n  banger ") {
			t.Errorf("%s --help: no example", path)
		}
	})
	if lost := slices.DeleteFunc(slices.Sorted(maps.Keys(table)), func(path string) bool { return seen[path] }); len(lost) > 0 {
		t.Errorf("no commands: %q", lost)
	}
}

// TestExamplesParse checks that the flags in examples exist.
func TestExamplesParse(t *testing.T) {
	everyCommand(newRoot(), func(cmd *cobra.Command) {
		for line := range strings.Lines(cmd.Example) {
			_, line, found := strings.Cut(line, "banger ")
			if !found {
				continue
			}
			line, _, _ = strings.Cut(strings.TrimSpace(line), " | ")
			line, _, _ = strings.Cut(line, "$(")
			root := newRoot()
			target, args, err := root.Find(strings.Fields(strings.NewReplacer("'", "", `"`, "").Replace(line)))
			if err == nil && !target.HasSubCommands() && target.Name() != "help" && !strings.Contains(line, "'{{") {
				err = target.ParseFlags(args)
			}
			if err != nil {
				t.Errorf("%s: example %q: %v", cmd.CommandPath(), line, err)
			}
		}
	})
}

// TestFlagsOfRunAreInGroups checks that no flag of run is left over.
func TestFlagsOfRunAreInGroups(t *testing.T) {
	run, _, err := newRoot().Find([]string{"run"})
	if err != nil {
		t.Fatal(err)
	}
	run.InitDefaultHelpFlag()
	text := usage(run)
	at := 0
	for _, heading := range []string{arg.MachineFlags, arg.CommandFlags, arg.ImageFlags, "Flags", "Global flags"} {
		i := strings.Index(text, "\n"+heading+":\n")
		if i < at {
			t.Fatalf("no heading %q after the one before:\n%s", heading, text)
		}
		at = i
	}
	if rest, _, _ := strings.Cut(text[strings.Index(text, "\nFlags:\n"):], "Global flags"); strings.Count(rest, "--") != 1 {
		t.Errorf("flags without a group: %s", rest) // --help alone
	}
}
