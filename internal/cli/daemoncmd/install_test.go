package daemoncmd

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/cli/env"
)

func TestUnits(t *testing.T) {
	u := unitTexts{
		socket: "/run/a%b/daemon.sock", command: []string{"/opt/a b/banger", "--data-root", `/d"$x\%`},
		environment: []string{"PATH=/bin", "SECRET=x", "XDG_DATA_HOME=/d%"},
	}
	if err := u.check(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"KillMode=process\n", "Environment=\"PATH=/bin\"\n", "Environment=\"XDG_DATA_HOME=/d%%\"\n",
		`ExecStart="/opt/a b/banger" "--data-root" "/d\"$$x\\%%"` + "\n",
	} {
		if !strings.Contains(u.serviceText(), want) {
			t.Errorf("the service has no %q:\n%s", want, u.serviceText())
		}
	}
	if strings.Contains(u.serviceText(), "SECRET") {
		t.Error("the service has the whole environment")
	}
	if !strings.Contains(u.socketText(), "ListenStream=/run/a%%b/daemon.sock\nSocketMode=0600\n") {
		t.Errorf("socket unit:\n%s", u.socketText())
	}
	for name, bad := range map[string]unitTexts{
		"long": {socket: "/" + strings.Repeat("x", maxSocketPath)}, "newline": {socket: "/a", command: []string{"a\nExecStop=b"}},
	} {
		if bad.check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestInstallAndUninstall(t *testing.T) {
	var notes bytes.Buffer
	e := &env.Env{Err: &notes}
	dir := t.TempDir()
	e.Paths.Data, e.Paths.Runtime = filepath.Join(dir, "data"), filepath.Join(dir, "r")
	e.Paths.Config = filepath.Join(dir, "config", "banger", "config.toml")
	var out bytes.Buffer
	e.Out = &out
	t.Setenv("PATH", t.TempDir()) // without systemctl
	if err := installUnits(t.Context(), e, false); err != nil {
		t.Fatal(err)
	}
	if want := "systemctl --user daemon-reload\nsystemctl --user enable --now banger.socket\n"; out.String() != want {
		t.Errorf("printed %q, want %q", &out, want)
	}
	if err := uninstallUnits(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(unitFolder(e))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
