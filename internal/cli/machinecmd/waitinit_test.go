package machinecmd

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/exit"
)

// answerExec makes the connection of a request a stream and sends the output and the
// exit code of a command.
func answerExec(t *testing.T, w http.ResponseWriter, r *http.Request, out string, code int) {
	t.Helper()
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		t.Error(err)
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n%s: %d\r\n\r\n", api.Protocol, api.HeaderAPI, api.Version)
	c := frames.NewBuffered(conn, buffered.Reader)
	defer c.Close()
	if err := c.Send(frames.Stdout, []byte(out)); err != nil {
		t.Error(err)
	}
	if err := c.SendJSON(frames.Exit, api.Exit{Code: code}); err != nil {
		t.Error(err)
	}
}

// TestWaitInit waits for the init of machines whose systemctl gives a series of
// answers.
func TestWaitInit(t *testing.T) {
	for _, row := range []struct {
		name    string
		init    string
		answers []string // EXIT-CODE STATE
		err     string
		note    string
	}{
		{"systemd starts the machine", "image", []string{"1 ", "1 initializing", "1 starting", "0 running"}, "", ""},
		{"units fail", "image", []string{"1 degraded"}, "", "systemctl --failed"},
		{"systemd stops", "image", []string{"1 stopping"}, "systemd reports stopping", ""},
		{"another init", "image", []string{"127 "}, "", "not systemd"},
		{"banger's init", "banger", nil, "", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			asked := 0
			mux := http.NewServeMux()
			mux.HandleFunc("GET /v1/machines/box", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set(api.HeaderAPI, strconv.Itoa(api.Version))
				if err := json.NewEncoder(w).Encode(api.Machine{ID: "box", Name: "box", State: api.StateRunning, Init: row.init}); err != nil {
					t.Error(err)
				}
			})
			mux.HandleFunc("POST /v1/machines/box/exec", func(w http.ResponseWriter, r *http.Request) {
				text, state, _ := strings.Cut(row.answers[asked], " ")
				asked++
				code, err := strconv.Atoi(text)
				if err != nil {
					t.Error(err)
				}
				answerExec(t, w, r, state+"\n", code)
			})
			socket := filepath.Join(t.TempDir(), "d.sock")
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
			go server.Serve(l)
			defer server.Close()
			var notes strings.Builder
			w := waitInit
			err = w.await(t.Context(), &env.Env{Err: &notes}, &api.Client{Socket: socket}, "box")
			if (err != nil) != (row.err != "") || err != nil && !strings.Contains(err.Error(), row.err) {
				t.Errorf("error %v, want %q in it", err, row.err)
			}
			if asked != len(row.answers) || !strings.Contains(notes.String(), row.note) {
				t.Errorf("asked %d times, want %d; notes %q, want %q in it", asked, len(row.answers), &notes, row.note)
			}
		})
	}
}

func TestWaitFlag(t *testing.T) {
	for _, row := range []struct {
		value      waitFlag
		background bool
		usage      bool
	}{{waitReady, true, false}, {waitReady, false, false}, {waitInit, true, false}, {waitInit, false, true}, {"up", true, true}} {
		if err := row.value.check(row.background); (exit.Code(err) == exit.Usage) != row.usage {
			t.Errorf("--wait=%s, background %v: %v", row.value, row.background, err)
		}
	}
}
