package daemon

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/machine"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/spec"
)

// A hijackable is a ResponseRecorder that supports Hijack.
type hijackable struct {
	*httptest.ResponseRecorder
	hijacked bool
}

func (h *hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	h.hijacked = true
	a, b := net.Pipe()
	if err := b.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return nil, nil, err
	}
	go func() {
		defer closeConn(b)
		_, _ = io.Copy(io.Discard, io.LimitReader(b, 1<<10)) // the test ignores the answer
	}()
	return a, bufio.NewReadWriter(bufio.NewReader(a), bufio.NewWriter(a)), nil
}

// realHandler returns the handler of a daemon over a real store, and a function that
// adds a machine which does not run. Supervisors end at once.
func realHandler(t testing.TB, root string) (*server, func(testing.TB)) {
	t.Helper()
	machines, err := machine.Open(root, filepath.Join(root, "run"))
	if err != nil {
		t.Fatal(err)
	}
	c := Config{Machines: machines, Version: "v1-test", Supervisor: []string{"/bin/false"}}
	c.Images, c.Kernels = newStores(t)
	s := newServer(c.complete())
	close(s.reconciled)
	ctx := t.Context() // inside f.Fuzz a call of f.Context panics
	var watching sync.WaitGroup
	watching.Go(func() { s.watcher.run(ctx) })
	t.Cleanup(watching.Wait)
	image, err := c.Images.Find("app", "docker.io/library/app:latest")
	if err != nil {
		t.Fatal(err)
	}
	return s, func(t testing.TB) { addMachine(t, machines, image.ID.Hex()) }
}

// addMachine adds the machine, unless it exists.
func addMachine(t testing.TB, machines *machine.Store, image string) {
	t.Helper()
	dir := machines.Folder(idOne)
	if _, err := os.Lstat(filepath.Join(dir, "record.json")); !errors.Is(err, fs.ErrNotExist) {
		return
	}
	rec := record.Record{
		Schema: record.Schema, ID: idOne, Config: spec.Config{Name: "one"}, State: record.StateExited, Created: time.Now(),
		Image: "sha256:" + "a1", ImageName: image,
	}
	b, err := json.Marshal(rec)
	if err == nil {
		err = errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "record.json"), b, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// FuzzRequest sends requests to the real handler. None of them may cause a panic or
// an answer with the status 500.
func FuzzRequest(f *testing.F) {
	upgrade := "Connection: Upgrade\r\nUpgrade: " + api.Protocol + "\r\n"
	for _, r := range new(handlers).routes() {
		method, path, _ := strings.Cut(r.pattern, " ")
		for _, ref := range []string{"one", "1", "none", "%2e%2e", "a%2fb"} {
			path := strings.ReplaceAll(path, "{ref}", ref)
			f.Add(method, path, "", []byte("{}"))
			f.Add(method, path, upgrade, []byte(`{}`))
		}
	}
	for _, body := range []string{
		``, `null`, `[]`, `{"image":"app"}`, `{"image":"app","config":{"cpus":-1,"memory":1e3}}`, `{"create":{"image":"app","name":"../x"}}`,
		`{"timeout":-5}`, `{"timeout":99999999999}`, `{"signal":"NOPE"}`, `{"name":"\u0000"}`, `{"args":null,"tty":{"rows":-1}}`,
		`{"filters":["until=99999h","label=","status=none"]}`, `{"path":"../..","op":"stat"}`, `{"x":1}`, `{} {}`, `{"image":`,
	} {
		for _, path := range []string{"/v1/machines", "/v1/run", "/v1/prune", "/v1/machines/one/stop", "/v1/machines/one/start", "/v1/machines/one/rename", "/v1/machines/one/exec"} {
			f.Add(http.MethodPost, path, upgrade, []byte(body))
		}
	}
	for _, query := range []string{"all=maybe", "filter=x", "filter=exited=x&filter=until=1h", "follow=1&tail=x", "since=yesterday", "%zz", "tail=-9999999999999999999"} {
		f.Add(http.MethodGet, "/v1/machines?"+query, "", []byte(nil))
		f.Add(http.MethodGet, "/v1/machines/one/logs?"+query, "", []byte(nil))
		f.Add(http.MethodGet, "/v1/machines/one/stats?"+query, "", []byte(nil))
	}
	f.Add("PUT", "/v1/machines/one", "Banger-Api: 2\r\n", []byte("x"))
	f.Add("GET", "/v1//machines/../machines", "Banger-Api: \xff\r\n", []byte(""))
	f.Add("OPTIONS", "*", "", []byte(""))
	f.Add("CONNECT", "host:1", "", []byte(""))

	s, prepare := realHandler(f, f.TempDir())
	f.Fuzz(func(t *testing.T, method, path, header string, body []byte) {
		raw := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: b\r\n%sContent-Length: %d\r\n\r\n%s", method, path, header, len(body), body)
		req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
		if err != nil {
			t.Skip() // the HTTP server refuses the request
		}
		prepare(t)
		w := &hijackable{ResponseRecorder: httptest.NewRecorder()}
		s.ServeHTTP(w, req.WithContext(t.Context()))
		if w.hijacked {
			return
		}
		if w.Code == http.StatusInternalServerError {
			t.Fatalf("%q: status %d: %s", raw, w.Code, w.Body)
		}
		if w.Code >= http.StatusBadRequest {
			e := new(api.Error)
			if err := json.Unmarshal(bytes.TrimSpace(w.Body.Bytes()), e); err != nil || e.Code == "" || e.Message == "" {
				t.Errorf("%q: status %d with the body %q", raw, w.Code, w.Body)
			}
		}
	})
}
