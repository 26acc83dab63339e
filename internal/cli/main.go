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

	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/exit"
	"github.com/banger-vm/banger/internal/cli/render"
)

// Main runs one command line, args without the program's name, and returns
// the exit code. When ctx ends the command stops and cleans up after itself.
func Main(ctx context.Context, version string, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	// The merged tree is one large live object with few pointers, so that
	// collecting often costs little and holds the peak close to what is live.
	debug.SetGCPercent(20)

	e := &env.Env{Version: version, In: stdin, Out: stdout, Err: stderr}
	root := rootCommand(e)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if _, ok := errors.AsType[exit.Error](err); err != nil && !ok {
		printError(ctx, stderr, err)
	}
	return exit.Code(err)
}

// printError says what went wrong in one line, and in a second one what the
// user can do about it where there is something.
func printError(ctx context.Context, w io.Writer, err error) {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		fmt.Fprintln(w, "banger: interrupted")
		return
	}
	fmt.Fprintf(w, "banger: %s\n", render.OneLine(err.Error()))
	if h := hint(err); h != "" {
		fmt.Fprintf(w, "hint: %s\n", h)
	}
}
