// Package cli is banger's command line: flags, output, errors and exit codes,
// one file for each command. It prints; it does none of the work itself,
// which lies in the packages it calls.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// The exit codes that do not come from a guest's command.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// Main runs one command line, args without the program's name, and returns
// the exit code. When ctx ends the command stops and cleans up after itself.
func Main(ctx context.Context, version string, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	// The merged tree is one large live object with few pointers, so that
	// collecting often costs little and holds the peak close to what is live.
	debug.SetGCPercent(20)

	a := &app{version: version, in: stdin, out: stdout, err: stderr}
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	if _, ok := errors.AsType[exitError](err); !ok {
		a.printError(ctx, err)
	}
	return exitCode(err)
}

// printError says what went wrong in one line, and in a second one what the
// user can do about it where there is something.
func (a *app) printError(ctx context.Context, err error) {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		fmt.Fprintln(a.err, "banger: interrupted")
		return
	}
	fmt.Fprintf(a.err, "banger: %s\n", oneLine(err.Error()))
	if h := hint(err); h != "" {
		fmt.Fprintf(a.err, "hint: %s\n", h)
	}
}

// oneLine keeps a message of several errors, or one that quotes a server or
// a tool, in one line and free of control characters.
func oneLine(s string) string {
	s = strings.ReplaceAll(strings.TrimSpace(s), "\n", "; ")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

// A usageError is a command line that makes no sense: exit code 2.
type usageError struct{ msg string }

func (e *usageError) Error() string { return e.msg }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// exactly checks that the command got the arguments that its use line names.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != len(names) {
			return usagef("%s takes %s, got %d arguments", cmd.CommandPath(), argumentList(names), len(args))
		}
		return nil
	}
}

func atLeastOne(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usagef("%s takes at least one %s", cmd.CommandPath(), name)
		}
		return nil
	}
}

func argumentList(names []string) string {
	if len(names) == 0 {
		return "no arguments"
	}
	return strings.Join(names, " and ")
}
