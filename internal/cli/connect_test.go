package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/flock"
	"github.com/banger-vm/banger/internal/daemon"
	"github.com/banger-vm/banger/internal/machine"
)

// standIn listens in the place of a daemon that says it is info. Once it has
// been asked to end it says that it is next.
func standIn(t *testing.T, a *app, info, next api.Info) *atomic.Int32 {
	t.Helper()
	machines, err := machine.Open(a.paths.Data, a.paths.Runtime)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", daemon.SocketPath(machines.Runtime()))
	if err != nil {
		t.Fatal(err)
	}
	ends := new(atomic.Int32)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/version", func(w http.ResponseWriter, _ *http.Request) {
		says := info
		if ends.Load() > 0 {
			says = next
		}
		if err := json.NewEncoder(w).Encode(says); err != nil {
			t.Error(err)
		}
	})
	mux.HandleFunc("POST /v1/shutdown", func(http.ResponseWriter, *http.Request) { ends.Add(1) })
	server := &http.Server{Handler: mux}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l) // its end is the test's
	}()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return ends
}

func testApp(t *testing.T, notes io.Writer) *app {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	a := &app{version: "v2", out: io.Discard, err: notes}
	a.paths.Data, a.paths.Runtime = filepath.Join(dir, "data"), filepath.Join(dir, "r")
	a.paths.Config = filepath.Join(dir, "config", "banger", "config.toml")
	return a
}

func TestDaemonOfAnotherVersion(t *testing.T) {
	for _, row := range []struct {
		name       string
		info, next api.Info
		ends       int32
		text       string // of the error, or of the note where there is none
		fails      bool
	}{
		{"the same protocol", api.Info{API: api.Version, Version: "v1", PID: 1}, api.Info{}, 0, "", false},
		{
			"another protocol, and systemd starts ours", api.Info{API: 99, Version: "v9", PID: 1},
			api.Info{API: api.Version, PID: 2}, 1, "the daemon is banger v9, which speaks another protocol", false,
		},
		{
			"another protocol, and systemd starts it again", api.Info{API: 99, Version: "v9", PID: 1},
			api.Info{API: 99, Version: "v9", PID: 2}, 1, "banger daemon install", true,
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			var notes bytes.Buffer
			a := testApp(t, &notes)
			ends := standIn(t, a, row.info, row.next)
			client, err := a.daemon(t.Context())
			said := notes.String()
			if err != nil {
				said = err.Error()
			}
			if (err != nil) != row.fails || (client == nil) != row.fails || !strings.Contains(said, row.text) || row.text == "" && said != "" {
				t.Errorf("error %v, said %q, want %q", err, said, row.text)
			}
			if got := ends.Load(); got != row.ends {
				t.Errorf("asked to end %d times, want %d", got, row.ends)
			}
		})
	}
}

// Where systemd listens, a connection starts a daemon: only one that runs is
// spoken to, and nobody after it.
func TestEndDaemon(t *testing.T) {
	a := testApp(t, io.Discard)
	ends := standIn(t, a, api.Info{API: api.Version, PID: 1}, api.Info{API: api.Version, PID: 2})
	machines, err := machine.Open(a.paths.Data, a.paths.Runtime)
	if err != nil {
		t.Fatal(err)
	}
	lock := filepath.Join(machines.Runtime(), "daemon.lock")
	for _, made := range []bool{false, true} {
		if made {
			if err := os.WriteFile(lock, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if info, err := a.runningDaemon(t.Context()); info != nil || err != nil {
			t.Errorf("no daemon runs, and there is %+v, %v", info, err)
		}
		if err := a.endDaemon(t.Context()); err != nil || ends.Load() != 0 {
			t.Errorf("no daemon runs, and %d were ended: %v", ends.Load(), err)
		}
	}
	unlock, err := flock.LockFile(t.Context(), lock)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := a.runningDaemon(t.Context()); err != nil || info == nil || info.PID != 1 {
		t.Errorf("a daemon runs, and there is %+v, %v", info, err)
	}
	done := make(chan error)
	go func() { done <- a.endDaemon(t.Context()) }()
	for ends.Load() == 0 {
		runtime.Gosched()
	}
	select {
	case err := <-done:
		t.Errorf("not waited for: %v", err)
	case <-time.After(10 * startEvery):
	}
	unlock()
	if err := <-done; err != nil || ends.Load() != 1 {
		t.Errorf("asked to end %d times: %v", ends.Load(), err)
	}
}

func TestDaemonLog(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, daemonLogName)
	for _, row := range []struct{ before, after int }{{10, 10}, {maxDaemonLog + 1, 0}} {
		if err := os.WriteFile(path, make([]byte, row.before), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := openDaemonLog(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Size() != int64(row.after) {
			t.Errorf("a log of %d bytes has %d, want %d (%v)", row.before, info.Size(), row.after, err)
		}
	}
}

func TestLastLine(t *testing.T) {
	for text, want := range map[string]string{"": "", "old": "", "old\n": "", "oldone\nbanger: two\n": "two", "oldx": "x"} {
		got := ""
		if err := lastLine(strings.NewReader(text), 3); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q ends with %q, want %q", text, got, want)
		}
	}
}

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
	a := testApp(t, &notes)
	a.paths.Runtime = filepath.Join(t.TempDir(), "r")
	var out bytes.Buffer
	a.out = &out
	t.Setenv("PATH", t.TempDir()) // without systemctl
	if err := a.installUnits(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if want := "systemctl --user daemon-reload\nsystemctl --user enable --now banger.socket\n"; out.String() != want {
		t.Errorf("printed %q, want %q", &out, want)
	}
	if err := a.uninstallUnits(t.Context()); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(a.unitFolder())
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
