package bootplan

import (
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/machine/spec"
)

// command merges a machine's configuration with the image's by docker's rules:
// an entrypoint of the user drops the image's Cmd, arguments replace Cmd, and a
// variable of the user replaces the image's.
func command(c *spec.Config, img *store.Config) guest.Command {
	entrypoint, args := img.Entrypoint, img.Cmd
	if c.Entrypoint != nil {
		entrypoint, args = nil, nil
		if *c.Entrypoint != "" {
			entrypoint = []string{*c.Entrypoint}
		}
	}
	if len(c.Args) > 0 {
		args = c.Args
	}
	return guest.Command{
		Args: append(append([]string{}, entrypoint...), args...),
		Env:  MergeEnv(append([]string{"HOSTNAME=" + c.Hostname}, img.Env...), c.Env),
		User: spec.OrDefault(c.User, img.User), Dir: spec.OrDefault(c.Dir, img.WorkingDir),
		StopSignal: img.StopSignal, Stdin: c.Stdin,
	}
}

// Exec returns a command that has only the environment, the user and the
// working directory of further commands in the machine.
func Exec(c *spec.Config, img *store.Config) guest.Command {
	cmd := command(c, img)
	return guest.Command{Env: cmd.Env, User: cmd.User, Dir: cmd.Dir}
}

// commandSetting returns the name of a setting in c that only a command can
// have, or "" if c has none.
func commandSetting(c *spec.Config) string {
	for _, row := range []struct {
		given bool
		name  string
	}{
		{len(c.Env) > 0, "an environment"}, {c.User != "", "a user"}, {c.Dir != "", "a working directory"},
		{c.Stdin, "standard input"}, {c.TTY, "a terminal"},
	} {
		if row.given {
			return row.name
		}
	}
	return ""
}

// MergeEnv returns the variables of base and then of more. A later variable
// replaces an earlier one of the same name, at the place of the earlier one. An
// entry without "=" removes the variable of that name.
func MergeEnv(base, more []string) []string {
	out := guest.UniqueEnv(slices.Concat(base, more))
	// An image of an older version of banger may have a value without a name.
	return slices.DeleteFunc(out, func(v string) bool { return strings.Index(v, "=") < 1 })
}
