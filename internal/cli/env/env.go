// Package env holds the environment of a command: its streams, the global
// flags, the locations of files, and the configuration file. It runs no
// command and opens no store. Every command is a function of an *Env.
package env

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/banger-vm/banger/internal/base/xdg"
	"github.com/banger-vm/banger/internal/cli/exit"
	"golang.org/x/term"
)

// An Env is the environment that all commands of one command line share.
// Prepare completes it before a command runs.
type Env struct {
	Version  string
	In       io.Reader
	Out, Err io.Writer

	// The global flags.
	DataRoot string // --data-root, "" for the configuration's
	JSON     bool
	Quiet    bool
	Progress string // auto, plain, json or none
	Verbose  bool

	Paths  xdg.Paths
	Config Config
}

// Prepare sets Paths, reads the configuration file into Config, and checks the
// global flags. A flag takes precedence over the configuration.
func (e *Env) Prepare() error {
	var err error
	if e.Paths, err = xdg.Default(); err != nil {
		return err
	}
	if e.Config, err = readConfig(e.Paths.Config); err != nil {
		return err
	}
	if e.DataRoot == "" {
		e.DataRoot = e.Config.DataRoot
	}
	if e.DataRoot != "" {
		if e.Paths.Data, err = filepath.Abs(e.DataRoot); err != nil {
			return fmt.Errorf("find data folder: %w", err)
		}
	}
	switch e.Progress {
	case "auto", "plain", "json", "none":
		return nil
	}
	return exit.Usagef("--progress=%s: want auto, plain, json or none", e.Progress)
}

// KernelCatalog returns the path of the user's own catalog of kernels.
func (e *Env) KernelCatalog() string {
	return filepath.Join(filepath.Dir(e.Paths.Config), "kernels.toml")
}

// Note writes a line that is neither a result nor an error to Err, unless
// Quiet is set. The texts in args lose their control characters.
func (e *Env) Note(format string, args ...any) {
	if !e.Quiet {
		fmt.Fprintf(e.Err, format+"\n", CleanArgs(args)...)
	}
}

// Terminal returns the file of stream and true if stream is a terminal.
func Terminal(stream any) (*os.File, bool) {
	if o, ok := stream.(*Output); ok {
		stream = o.to
	}
	f, ok := stream.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, false
	}
	return f, true
}
