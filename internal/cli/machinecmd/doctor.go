package machinecmd

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/connect"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/exit"
	"github.com/banger-vm/banger/internal/cli/render"
	"github.com/banger-vm/banger/internal/machine/repair"
	"github.com/spf13/cobra"
)

func doctorCommand(e *env.Env) *cobra.Command {
	var fix, dryRun bool
	cmd := &cobra.Command{
		Use: "doctor", Short: "Look for what is wrong with the host and the machines",
		Example: `  banger doctor
  banger doctor --fix --dry-run`,
		Long: "Look at what machines need of the host, at the records of machines, and for what\n" +
			"killed processes have left. The exit code is 1 when something is wrong and not fixed.\n" +
			"The daemon is not needed, and what it has running is not touched.",
		Args: arg.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dryRun && !fix {
				return exit.Usagef("--dry-run goes with --fix")
			}
			return doctor(e, cmd, fix, dryRun)
		},
	}
	cmd.Flags().BoolVar(&fix, "fix", false, "set machines right and remove leftovers")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only show what --fix would do")
	return cmd
}

// A diagnosis is the result of doctor as JSON.
type diagnosis struct {
	repair.Report
	Fixed []string `json:"fixed,omitempty"`
	Wrong bool     `json:"wrong"`
}

func doctor(e *env.Env, cmd *cobra.Command, fix, dryRun bool) error {
	machines, err := openMachines(e)
	if err != nil {
		return err
	}
	machines.Cache = e.Paths.Cache
	machines.Unconfined = e.Config.QEMU.Unconfined()
	ctx := cmd.Context()
	var d diagnosis
	if d.Report, err = machines.Examine(ctx); err != nil {
		return err
	}
	if fix && !dryRun && d.HasFaults() {
		if d.Fixed, err = machines.Fix(ctx, d.Report); err != nil {
			e.Note("warning: %v", err)
		}
		if d.Report, err = machines.Examine(ctx); err != nil {
			return err
		}
	}
	d.Checks = append(d.Checks, checkDaemon(ctx, e)...)
	d.Wrong = d.HasFaults()
	if e.JSON {
		err = render.JSON(e.Out, d)
	} else {
		err = printDiagnosis(e, &d, dryRun)
	}
	if err == nil && d.Wrong {
		err = exit.Error(exit.Failed)
	}
	return err
}

// checkDaemon reports on the daemon, if one runs. It starts QEMU with the environment in
// which it was started itself, and not with that of the command that asks for a machine.
func checkDaemon(ctx context.Context, e *env.Env) []repair.Check {
	info, err := connect.Running(ctx, e)
	if err != nil {
		return []repair.Check{{Name: "daemon", Level: repair.LevelWarning, Detail: err.Error()}}
	}
	if info == nil {
		return nil
	}
	c := repair.Check{Name: "daemon", Level: repair.LevelOK, Detail: fmt.Sprintf("process %d, banger %s", info.PID, info.Version)}
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", info.PID))
	if err != nil {
		return []repair.Check{c} // it is of another user
	}
	path, here := "", os.Getenv("PATH")
	for _, v := range strings.Split(string(environ), "\x00") {
		if value, ok := strings.CutPrefix(v, "PATH="); ok {
			path = value
		}
	}
	if path == here {
		c.Detail += "; its PATH is the one here"
		return []repair.Check{c}
	}
	c.Level = repair.LevelWarning
	c.Detail += "; it starts QEMU with its own environment, with PATH=" + path + ", and here PATH is " + here
	c.Fix = "banger daemon stop, and the next command starts a daemon with its environment; machines go on"
	return []repair.Check{c}
}

func printDiagnosis(e *env.Env, d *diagnosis, dryRun bool) error {
	w := errWriter{to: e.Out}
	for _, text := range d.Fixed {
		w.line("fixed", text)
	}
	for _, c := range d.Checks {
		if e.Quiet && c.Level == repair.LevelOK {
			continue
		}
		w.line(string(c.Level), c.Name+": "+render.OneLine(c.Detail))
		w.fix(c.Fix)
	}
	auto := "banger doctor --fix would "
	if dryRun {
		auto = "would "
	}
	for _, f := range d.Machines {
		w.line(string(f.Level), "machine "+cmp.Or(f.Name, f.ID)+": "+render.OneLine(f.Detail))
		if f.Fixable {
			f.Fix = auto + f.Fix
		}
		w.fix(f.Fix)
	}
	for _, r := range d.Leftovers {
		w.line(string(repair.LevelWarning), fmt.Sprintf("%s of machine %s, which does not need it", &r, r.Owner.ID()))
		w.fix(auto + "remove it")
	}
	return w.err
}

// fix writes the remedy for the problem of the line before.
func (w *errWriter) fix(text string) {
	if text != "" {
		w.line("", text)
	}
}

// line writes a text after the word for its kind, on lines of 80 columns.
func (w *errWriter) line(word, text string) {
	const columns, indent = 80, 9
	for i, part := range render.Wrap(text, columns-indent) {
		if i > 0 {
			word = ""
		}
		w.printf("%-8s %s\n", word, part)
	}
}

// An errWriter writes until the first error, which it keeps.
type errWriter struct {
	to  io.Writer
	err error
}

func (w *errWriter) printf(format string, args ...any) {
	if w.err == nil {
		_, w.err = fmt.Fprintf(w.to, format, args...)
	}
}
