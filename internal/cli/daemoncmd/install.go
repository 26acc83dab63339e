package daemoncmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/banger-vm/banger/internal/base/atomicfile"
	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/connect"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/render"
	"github.com/spf13/cobra"
)

// The names of the systemd units.
const (
	socketUnit  = "banger.socket"
	serviceUnit = "banger.service"
)

// maxSocketPath is the longest path of a socket's address in bytes, without its
// final NUL (unix(7)). systemd cannot listen on a longer path.
const maxSocketPath = 107

func installCommand(e *env.Env) *cobra.Command {
	var enable, uninstall bool
	cmd := &cobra.Command{
		Use:     "install",
		Short:   "Have systemd start the daemon when a command needs it",
		Example: "  banger daemon install --enable",
		Long: "Write systemd units of this user that listen on the daemon's socket and start the\n" +
			"daemon when a command connects. Nothing has to be installed for banger to work:\n" +
			"without units the commands start the daemon themselves.",
		Args: arg.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if uninstall {
				return uninstallUnits(cmd.Context(), e)
			}
			return installUnits(cmd.Context(), e, enable)
		},
	}
	cmd.Flags().BoolVar(&enable, "enable", false, "run the two systemctl commands too")
	cmd.Flags().BoolVar(&uninstall, "uninstall", false, "take the units away again")
	cmd.MarkFlagsMutuallyExclusive("enable", "uninstall")
	return cmd
}

// unitFolder returns the folder of this user's units (systemd.unit(5)).
func unitFolder(e *env.Env) string {
	return filepath.Join(filepath.Dir(filepath.Dir(e.Paths.Config)), "systemd", "user")
}

func systemctl(args ...string) []string { return append([]string{"systemctl", "--user"}, args...) }

func installUnits(ctx context.Context, e *env.Env, enable bool) error {
	socket, err := connect.Socket(e)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find banger: %w", err)
	}
	u := unitTexts{socket: socket, command: []string{
		self, "--data-root", e.Paths.Data, "daemon", "--idle-timeout", connect.OnDemandIdle.String(),
	}, environment: os.Environ()}
	if err := u.check(); err != nil {
		return err
	}
	dir := unitFolder(e)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("write units: %w", err)
	}
	for name, text := range map[string]string{socketUnit: u.socketText(), serviceUnit: u.serviceText()} {
		if err := atomicfile.Write(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("write units: %w", err)
		}
	}
	e.Note("wrote %s and %s", filepath.Join(dir, socketUnit), serviceUnit)
	steps := [][]string{systemctl("daemon-reload"), systemctl("enable", "--now", socketUnit)}
	if !enable {
		for _, step := range steps {
			fmt.Fprintln(e.Out, strings.Join(step, " "))
		}
		return nil
	}
	if err := connect.Stop(ctx, e); err != nil { // systemd listens on the socket from now on
		return err
	}
	for _, step := range steps {
		if err := runTool(ctx, step); err != nil {
			return err
		}
	}
	return nil
}

func uninstallUnits(ctx context.Context, e *env.Env) error {
	dir := unitFolder(e)
	if _, err := os.Stat(filepath.Join(dir, socketUnit)); errors.Is(err, fs.ErrNotExist) {
		e.Note("there are no units in %s", dir)
		return nil
	}
	if _, err := exec.LookPath("systemctl"); err == nil {
		// This fails if the units were never enabled, or if no user manager runs. The
		// units are removed in any case.
		if err := runTool(ctx, systemctl("disable", "--now", socketUnit)); err != nil {
			e.Note("warning: %s", render.OneLine(err.Error()))
		}
	}
	for _, name := range []string{socketUnit, serviceUnit} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove units: %w", err)
		}
	}
	e.Note("removed %s and %s", filepath.Join(dir, socketUnit), serviceUnit)
	fmt.Fprintln(e.Out, strings.Join(systemctl("daemon-reload"), " "))
	return nil
}

func runTool(ctx context.Context, argv []string) error {
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, out)
	}
	return nil
}

// unitTexts makes the texts of the unit files.
type unitTexts struct {
	socket      string
	command     []string
	environment []string // of this process
}

func (u *unitTexts) check() error {
	if len(u.socket) > maxSocketPath {
		return fmt.Errorf("write units: the socket's path %s has %d bytes, and systemd takes %d at most", u.socket, len(u.socket), maxSocketPath)
	}
	for _, word := range append([]string{u.socket}, u.command...) {
		if strings.ContainsFunc(word, func(r rune) bool { return r < ' ' }) {
			return fmt.Errorf("write units: %q has a control character", word)
		}
	}
	return nil
}

func (u *unitTexts) socketText() string {
	return `[Unit]
Description=Socket of the banger daemon

[Socket]
ListenStream=` + strings.ReplaceAll(u.socket, "%", "%%") + `
SocketMode=0600
DirectoryMode=0700

[Install]
WantedBy=sockets.target
`
}

// serviceText returns the service unit. With KillMode=process the machines, which
// are child processes of the daemon, keep running when the daemon ends.
func (u *unitTexts) serviceText() string {
	var b strings.Builder
	b.WriteString(`[Unit]
Description=banger daemon
Requires=` + socketUnit + `
After=` + socketUnit + `

[Service]
KillMode=process
`)
	for _, name := range []string{"PATH", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"} {
		for _, v := range u.environment {
			if strings.HasPrefix(v, name+"=") {
				b.WriteString("Environment=" + unitWord(v, false) + "\n")
			}
		}
	}
	b.WriteString("ExecStart=")
	for i, word := range u.command {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(unitWord(word, true))
	}
	b.WriteByte('\n')
	return b.String()
}

// unitWord quotes a word as systemd.syntax(7) describes. In a command line "$" is
// special too (systemd.service(5)).
func unitWord(word string, command bool) string {
	pairs := []string{`\`, `\\`, `"`, `\"`, "%", "%%"}
	if command {
		pairs = append(pairs, "$", "$$")
	}
	return `"` + strings.NewReplacer(pairs...).Replace(word) + `"`
}
