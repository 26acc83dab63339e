package agent

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/guest"
)

// dirMode is the mode of working directories that the agent creates.
const dirMode = 0o755

// The exit codes of shells for commands that cannot be started.
const (
	exitCannotRun = 126
	exitNotFound  = 127
)

// A launch describes a process that is ready to start: all its names are
// resolved.
type launch struct {
	path    string
	argv    []string
	env     []string
	dir     string
	account *account
	stdin   bool
	tty     *tty
}

// etc returns the user databases of the current root.
func etc() databases { return databases{passwd: "/etc/passwd", group: "/etc/group"} }

// commandLaunch prepares the process of a guest.Command.
func commandLaunch(c *guest.Command, t *tty) (*launch, error) {
	if err := checkCommand(c); err != nil {
		return nil, err
	}
	acc, err := etc().find(c.User)
	if err != nil {
		return nil, err
	}
	l := &launch{argv: c.Args, dir: filepath.Join("/", c.Dir), account: acc, stdin: c.Stdin, tty: t}
	l.env = environ(c.Env, "HOME="+acc.home, "PATH="+guest.DefaultPath)
	if t != nil {
		l.env = environ(l.env, "TERM="+t.term)
	}
	if err := checkDir(l.dir, c.Main); err != nil {
		return nil, err
	}
	l.path, err = lookPath(c.Args[0], l.dir, valueOf(l.env, "PATH"))
	return l, err
}

// checkCommand returns an error if the kernel could not take c's strings.
func checkCommand(c *guest.Command) error {
	if len(c.Args) == 0 || c.Args[0] == "" {
		return errors.New("no command given")
	}
	for _, s := range c.Args {
		if strings.ContainsRune(s, 0) {
			return errors.New("an argument has a zero byte")
		}
	}
	for _, s := range c.Env {
		name, _, ok := strings.Cut(s, "=")
		if !ok || name == "" || strings.ContainsRune(s, 0) {
			return fmt.Errorf("environment %q is not NAME=value", s)
		}
	}
	if strings.ContainsRune(c.Dir, 0) {
		return errors.New("the working directory has a zero byte")
	}
	return nil
}

// loginLaunch prepares a user's login shell. It runs command unless that is
// empty.
func loginLaunch(user, command string, env []string, t *tty) (*launch, error) {
	acc, err := etc().find(user)
	if err != nil {
		return nil, err
	}
	l := &launch{path: acc.shell, account: acc, stdin: true, tty: t, dir: acc.home}
	name := filepath.Base(acc.shell)
	l.argv = []string{"-" + name}
	if command != "" {
		l.argv = []string{name, "-c", command}
	}
	if info, err := os.Stat(l.dir); err != nil || !info.IsDir() {
		l.dir = "/" // login(1) does the same, and many home folders of system users do not exist
	}
	account := cmp.Or(acc.name, user)
	l.env = environ(env, "HOME="+acc.home, "PATH="+guest.DefaultPath, "USER="+account, "LOGNAME="+account, "SHELL="+acc.shell)
	if t != nil {
		l.env = environ(l.env, "TERM="+t.term)
	}
	return l, nil
}

// environ returns env with those defaults whose names are not in env. If a name
// occurs several times, the last entry counts.
func environ(env []string, defaults ...string) []string {
	out := guest.UniqueEnv(env)
	for _, s := range defaults {
		name, _, _ := strings.Cut(s, "=")
		if !slices.ContainsFunc(out, func(v string) bool { return v == name || strings.HasPrefix(v, name+"=") }) {
			out = append(out, s)
		}
	}
	return out
}

func valueOf(env []string, name string) string {
	for _, s := range env {
		if value, ok := strings.CutPrefix(s, name+"="); ok {
			return value
		}
	}
	return ""
}

// checkDir checks a working directory. If it is missing and create is set,
// checkDir creates it. As with docker, only the main command's is created: for
// a further command it is most likely a typing error.
func checkDir(dir string, create bool) error {
	info, err := os.Stat(dir)
	switch {
	case err == nil && !info.IsDir():
		return &fs.PathError{Op: "chdir", Path: dir, Err: unix.ENOTDIR}
	case err == nil:
		return nil // chdir in the new process checks the user's permission
	case !create:
		if cause, ok := errors.AsType[*fs.PathError](err); ok {
			err = cause.Err
		}
		return fmt.Errorf("working directory: %w", &fs.PathError{Op: "chdir", Path: dir, Err: err})
	}
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return fmt.Errorf("make working directory: %w", err)
	}
	return nil
}

// lookPath returns the program that a process in dir would run for name.
func lookPath(name, dir, path string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil // the kernel checks it at exec
	}
	found := fmt.Errorf("%s: %w in PATH", name, unix.ENOENT)
	for _, in := range filepath.SplitList(path) {
		full := filepath.Join(in, name)
		if !filepath.IsAbs(full) {
			full = filepath.Join(dir, full) // an empty element means the working directory
		}
		info, err := os.Stat(full)
		if err != nil {
			continue // as in a shell, a later folder may have it
		}
		if info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return full, nil
		}
		found = fmt.Errorf("%s: %w", full, fs.ErrPermission)
	}
	return "", found
}

// exitCode returns the exit code of a shell for a command that could not be
// started.
func exitCode(err error) int {
	var path *fs.PathError
	if errors.As(err, &path) && (path.Op == "chdir" || path.Op == "mkdir") {
		return exitCannotRun
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return exitNotFound
	}
	return exitCannotRun
}
