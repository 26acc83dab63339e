package connect

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
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/daemon"
	"github.com/banger-vm/banger/internal/machine"
)

// fakeDaemon serves requests on the daemon's socket. It describes itself as info,
// and as next after the first request to shut down. It returns the number of
// such requests.
func fakeDaemon(t *testing.T, e *env.Env, info, next api.Info) *atomic.Int32 {
	t.Helper()
	machines, err := machine.Open(e.Paths.Data, e.Paths.Runtime)
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
		description := info
		if ends.Load() > 0 {
			description = next
		}
		if err := json.NewEncoder(w).Encode(description); err != nil {
			t.Error(err)
		}
	})
	mux.HandleFunc("POST /v1/shutdown", func(http.ResponseWriter, *http.Request) { ends.Add(1) })
	server := &http.Server{Handler: mux}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l) // the test closes it
	}()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return ends
}

func testEnv(t *testing.T, notes io.Writer) *env.Env {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	e := &env.Env{Version: "v2", Out: io.Discard, Err: notes}
	e.Paths.Data, e.Paths.Runtime = filepath.Join(dir, "data"), filepath.Join(dir, "r")
	e.Paths.Config = filepath.Join(dir, "config", "banger", "config.toml")
	return e
}

func TestDaemonOfAnotherVersion(t *testing.T) {
	for _, row := range []struct {
		name       string
		info, next api.Info
		ends       int32
		text       string // in the error, or in the note if there is no error
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
			e := testEnv(t, &notes)
			ends := fakeDaemon(t, e, row.info, row.next)
			client, err := Daemon(t.Context(), e)
			message := notes.String()
			if err != nil {
				message = err.Error()
			}
			if (err != nil) != row.fails || (client == nil) != row.fails || !strings.Contains(message, row.text) || row.text == "" && message != "" {
				t.Errorf("error %v, message %q, want %q", err, message, row.text)
			}
			if got := ends.Load(); got != row.ends {
				t.Errorf("asked to end %d times, want %d", got, row.ends)
			}
		})
	}
}

// If systemd listens on the socket, a connection starts a daemon. TestStop checks
// that Stop and Running connect only if a daemon runs, and that Stop does not
// connect again after its request.
func TestStop(t *testing.T) {
	e := testEnv(t, io.Discard)
	ends := fakeDaemon(t, e, api.Info{API: api.Version, PID: 1}, api.Info{API: api.Version, PID: 2})
	lock := filepath.Join(e.Paths.Data, "daemon.lock")
	for _, made := range []bool{false, true} {
		if made {
			if err := os.WriteFile(lock, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if info, err := Running(t.Context(), e); info != nil || err != nil {
			t.Errorf("no daemon runs, and there is %+v, %v", info, err)
		}
		if err := Stop(t.Context(), e); err != nil || ends.Load() != 0 {
			t.Errorf("no daemon runs, and %d were ended: %v", ends.Load(), err)
		}
	}
	unlock, err := flock.LockFile(t.Context(), lock)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := Running(t.Context(), e); err != nil || info == nil || info.PID != 1 {
		t.Errorf("a daemon runs, and there is %+v, %v", info, err)
	}
	done := make(chan error)
	go func() { done <- Stop(t.Context(), e) }()
	for ends.Load() == 0 {
		runtime.Gosched()
	}
	select {
	case err := <-done:
		t.Errorf("not waited for: %v", err)
	case <-time.After(10 * pollInterval):
	}
	unlock()
	if err := <-done; err != nil || ends.Load() != 1 {
		t.Errorf("asked to end %d times: %v", ends.Load(), err)
	}
}

func TestDaemonLog(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, logName)
	for _, row := range []struct{ before, after int }{{10, 10}, {maxLog + 1, 0}} {
		if err := os.WriteFile(path, make([]byte, row.before), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := openLog(dir)
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
