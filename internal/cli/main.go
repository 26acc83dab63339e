// Package cli is banger's command line. It parses the command line, runs the
// command, and reports an error with a hint and an exit code. The commands are
// in a package for each noun: machinecmd, imagecmd, kernelcmd and daemoncmd.
// They are functions of the environment of package env. Packages cli/... are
// the only ones that print; they leave the work to the packages that they call.
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

// Main runs one command line, args without the program's name, and returns the
// exit code. When ctx ends, the command stops and cleans up after itself.
func Main(ctx context.Context, version string, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	// The merged tree is one large live object with few pointers. A garbage
	// collection is therefore cheap, and frequent ones keep the peak low.
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

// printError writes err on one line. If there is a hint for the user, it
// follows on a second line.
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
