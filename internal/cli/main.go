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
	"syscall"

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

	out := env.NewOutput(stdout)
	e := &env.Env{Version: version, In: stdin, Out: out, Err: stderr}
	root := rootCommand(e)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(out)
	root.SetErr(stderr)
	err := outputError(root.ExecuteContext(ctx), out.Err())
	if _, ok := errors.AsType[exit.Error](err); err != nil && !ok {
		printError(ctx, stderr, err)
	}
	return exit.Code(err)
}

// outputError returns the error that ends banger if err is the error of a command and
// lost that of its standard output. If the reader of a pipe has gone, banger ends as by
// SIGPIPE and without a message, as other programs do in a pipeline.
func outputError(err, lost error) error {
	_, byOutput := errors.AsType[*env.OutputError](err)
	switch {
	case lost == nil || err != nil && !byOutput:
		return err
	case errors.Is(lost, syscall.EPIPE):
		return exit.BySignal(int(syscall.SIGPIPE))
	case err == nil:
		return lost
	}
	return err
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
