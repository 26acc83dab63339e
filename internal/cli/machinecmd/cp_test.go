package machinecmd

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/cli/copyrule"
	"github.com/banger-vm/banger/internal/guest/tarcopy"
)

// A fakeDaemon has one machine, whose files are in a folder.
type fakeDaemon struct {
	root string
	// override, if not nil, serves a request. It returns false for a request that
	// the machine is to serve in the usual way.
	override func(conn *frames.Conn, r api.ArchiveRequest) bool
}

// newDaemon returns a fakeDaemon, a copier that is a client of it, and the remarks of
// the copier.
func newDaemon(t *testing.T) (*fakeDaemon, *copier, *[]string) {
	t.Helper()
	d := &fakeDaemon{root: t.TempDir()}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/machines/box/archive", func(w http.ResponseWriter, r *http.Request) {
		var req api.ArchiveRequest
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			t.Error(err)
		}
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n%s: %d\r\n\r\n",
			api.Protocol, api.HeaderAPI, api.Version)
		d.serve(frames.NewBuffered(conn, buffered.Reader), req)
	})
	socket := filepath.Join(t.TempDir(), "daemon.sock")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	go func() {
		server.Serve(l)
		close(served)
	}()
	t.Cleanup(func() {
		server.Close()
		<-served
	})
	remarks := new([]string)
	return d, &copier{
		daemon: &api.Client{Socket: socket}, machine: "box",
		note: func(format string, args ...any) { *remarks = append(*remarks, fmt.Sprintf(format, args...)) },
	}, remarks
}

// serve serves a request as the guest program does.
func (d *fakeDaemon) serve(conn *frames.Conn, r api.ArchiveRequest) {
	if d.override != nil && d.override(conn, r) {
		return
	}
	exit := api.Exit{}
	if err := d.do(conn, r); err != nil {
		exit.Code = 1
		fmt.Fprintf(conn.Writer(frames.Stderr), "banger: error: %v\n", err)
	}
	_ = conn.SendJSON(frames.Exit, exit) // the client may have closed the connection
}

func (d *fakeDaemon) do(conn *frames.Conn, r api.ArchiveRequest) error {
	ctx := context.Background()
	out := conn.Writer(frames.Stdout)
	switch r.Op {
	case "stat":
		found, err := tarcopy.Lookup(d.root + r.Path)
		found.Target = strings.TrimPrefix(found.Target, d.root)
		if err != nil {
			return err
		}
		return json.NewEncoder(out).Encode(found)
	case "get":
		return tarcopy.Pack(ctx, out, d.root+r.Path, tarcopy.PackOptions{Follow: r.FollowLink})
	case "put":
		_, err := tarcopy.Extract(ctx, &stdin{conn: conn}, d.root+r.Path, tarcopy.ExtractOptions{Owners: r.KeepOwners, Trusted: true})
		return err
	}
	return fmt.Errorf("no operation %q", r.Op)
}

// answer sends the outputs and the end of a request. It ignores errors, because the
// client may have closed the connection.
func answer(conn *frames.Conn, stderr string, stdout []byte, code int) {
	_, _ = io.WriteString(conn.Writer(frames.Stderr), stderr)
	_, _ = conn.Writer(frames.Stdout).Write(stdout)
	_ = conn.SendJSON(frames.Exit, api.Exit{Code: code})
}

// stdin reads the input that a client sends.
type stdin struct {
	conn *frames.Conn
	rest []byte
}

func (s *stdin) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		f, err := s.conn.Next()
		if err != nil {
			return 0, io.ErrUnexpectedEOF
		}
		if f.Kind == frames.CloseStdin {
			return 0, io.EOF
		}
		if s.rest = f.Payload; f.Kind == frames.Stdin {
			_ = s.conn.Send(frames.Credit, nil) // the next Next returns the error
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestCopyBothWays(t *testing.T) {
	d, c, remarks := newDaemon(t)
	here := t.TempDir()
	big := strings.Repeat("0123456789", 500_000)
	write(t, here+"/dir/big", big)
	write(t, here+"/dir/sub/file", "x")
	for _, err := range []error{
		os.Mkdir(d.root+"/srv", 0o755), os.Symlink("/srv", d.root+"/to-srv"), os.Symlink("nothing", here+"/dir/link"),
		c.put(t.Context(), here+"/dir", "/srv"),       // into a folder
		c.put(t.Context(), here+"/dir", "/new"),       // as a name
		c.put(t.Context(), here+"/dir/.", "/srv/dir"), // over the existing files
		c.put(t.Context(), here+"/dir/sub/file", "/srv/renamed"),
		c.get(t.Context(), "/srv", here+"/back"),
		c.get(t.Context(), "/srv/dir/.", here+"/content"),
		c.get(t.Context(), "/srv/renamed", here),
		c.get(t.Context(), "/srv/renamed", here+"/dir/sub/file"),
		c.get(t.Context(), "/srv/dir/link", here),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{d.root + "/srv/dir/big", d.root + "/new/big", here + "/back/dir/big", here + "/content/big"} {
		if read(t, path) != big {
			t.Errorf("%s is not what was copied", path)
		}
	}
	for _, path := range []string{here + "/renamed", here + "/dir/sub/file", here + "/back/renamed"} {
		if got := read(t, path); got != "x" {
			t.Errorf("%s is %q", path, got)
		}
	}
	if target, err := os.Readlink(here + "/link"); err != nil || target != "nothing" {
		t.Errorf("link to %q, %v", target, err)
	}
	if len(*remarks) > 0 {
		t.Errorf("remarks %q", *remarks)
	}
}

func TestCopyStreams(t *testing.T) {
	d, c, _ := newDaemon(t)
	write(t, d.root+"/a/f", "x")
	var out bytes.Buffer
	if err := c.run(t.Context(), c.getRequest("/a"), nil, &out); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(d.root+"/b", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := c.putStream(t.Context(), &out, "/b"); err != nil {
		t.Fatal(err)
	}
	if got := read(t, d.root+"/b/a/f"); got != "x" {
		t.Errorf("got %q", got)
	}
	if err := c.putStream(t.Context(), &out, "/a/f"); !errors.Is(err, copyrule.ErrNotFolder) {
		t.Errorf("onto a file: %v", err)
	}
}

func TestCopyFails(t *testing.T) {
	d, c, _ := newDaemon(t)
	here := t.TempDir()
	write(t, here+"/file", "here")
	write(t, d.root+"/file", "there")
	write(t, d.root+"/dir/f", "there")
	for _, row := range []struct {
		name string
		do   func() error
		want string
	}{
		{"out of nothing", func() error { return c.get(t.Context(), "/none", here) }, "machine box: copy /none: no such file or directory"},
		{"out to nowhere", func() error { return c.get(t.Context(), "/file", here+"/none/x") }, here + "/none: no such file or directory"},
		{"out, a folder onto a file", func() error { return c.get(t.Context(), "/dir", here+"/file") }, "a folder cannot be copied onto a file"},
		{"out below a file", func() error { return c.get(t.Context(), "/file/x", here) }, "machine box: look up "},
		{"in from nothing", func() error { return c.put(t.Context(), here+"/none", "/") }, "copy " + here + "/none: no such file or directory"},
		{"in to nowhere", func() error { return c.put(t.Context(), here+"/file", "/none/x") }, "machine box: extract: open "},
		{"in to a folder that is not there", func() error { return c.put(t.Context(), here+"/file", "/none/") }, "machine box: copy to /none/: no such folder"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if err := row.do(); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q", err, row.want)
			}
		})
	}
	if read(t, here+"/file") != "here" || read(t, d.root+"/file") != "there" {
		t.Error("a copy that failed has changed a file")
	}
}

// TestCopyEndsEarly checks that a copy that cannot be packed, or is interrupted, ends
// on both sides.
func TestCopyEndsEarly(t *testing.T) {
	d, c, _ := newDaemon(t)
	dir := t.TempDir()
	l, err := net.Listen("unix", dir+"/socket")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := c.put(t.Context(), dir+"/socket", "/"); err == nil || !strings.Contains(err.Error(), "socket cannot be") {
		t.Errorf("a socket: %v", err)
	}
	write(t, dir+"/file", strings.Repeat("x", 1<<20))
	ctx, cancel := context.WithCancel(t.Context())
	d.override = func(_ *frames.Conn, r api.ArchiveRequest) bool {
		if r.Op != "stat" {
			cancel() // as Ctrl-C does
		}
		return false
	}
	if err := c.put(ctx, dir+"/file", "/"); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	if list, err := os.ReadDir(d.root); err != nil || len(list) > 0 {
		t.Errorf("in the machine: %v, %v", list, err)
	}
}

func TestCopyFollows(t *testing.T) {
	d, c, _ := newDaemon(t)
	here := t.TempDir()
	write(t, d.root+"/file", "there")
	if err := errors.Join(os.Symlink("file", d.root+"/link"), os.Symlink("link", here+"/link")); err != nil {
		t.Fatal(err)
	}
	c.flags.follow = true
	if err := c.get(t.Context(), "/link", here); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(here + "/link"); err != nil || !info.Mode().IsRegular() || read(t, here+"/link") != "there" {
		t.Errorf("got %v, %v", info, err)
	}
}

// TestCopyFromHostileMachine checks the answers of a malicious machine.
func TestCopyFromHostileMachine(t *testing.T) {
	hostile := func(name string, kind byte, target string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := errors.Join(w.WriteHeader(&tar.Header{Name: name, Typeflag: kind, Linkname: target, Mode: 0o777}), w.Close()); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	const file = `{"name":"x","mode":33188}`
	for _, row := range []struct {
		name, stat string
		stream     []byte
		stderr     string
		code       int
		want       string
	}{
		{name: "another name", stat: file, stream: hostile("probe", tar.TypeReg, ""), want: "not in"},
		{name: "a name that climbs", stat: file, stream: hostile("x/../../probe", tar.TypeReg, ""), want: ".."},
		{name: "a hard link to the host", stat: file, stream: hostile("x", tar.TypeLink, "/etc/passwd"), want: "absolute"},
		{name: "nothing", stat: file, stream: nil, want: "sent nothing"},
		{name: "a stream that is no tar", stat: file, stream: bytes.Repeat([]byte("garbage "), 100), want: "read tar stream"},
		{name: "an error with control characters", stat: file, stderr: "banger: error: \x1b[2Jgone\n", code: 1, want: "gone"},
		{name: "a failure without a message", stat: file, code: 9, want: "exit code 9"},
		{name: "a stat with another name", stat: `{"name":"../../probe","mode":33188,"target":"/etc"}`, stream: hostile("../../probe", tar.TypeReg, ""), want: ".."},
		{name: "no JSON", stat: "{", want: "look up"},
		{name: "JSON without end", stat: `"` + strings.Repeat("x", 2*maxStat), want: "look up"},
	} {
		t.Run(row.name, func(t *testing.T) {
			d, c, _ := newDaemon(t)
			d.override = func(conn *frames.Conn, r api.ArchiveRequest) bool {
				stderr, out, code := "", []byte(row.stat), 0
				if r.Op == "get" {
					stderr, out, code = row.stderr, row.stream, row.code
				}
				answer(conn, stderr, out, code)
				return true
			}
			top := t.TempDir()
			dest := filepath.Join(top, "dest")
			write(t, top+"/probe", "untouched")
			if err := os.Mkdir(dest, 0o755); err != nil {
				t.Fatal(err)
			}
			err := c.get(t.Context(), "/x", dest)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q", err, row.want)
			}
			list, err := os.ReadDir(dest)
			if read(t, top+"/probe") != "untouched" || err != nil || len(list) > 0 {
				t.Errorf("the host was touched: %v, %v", list, err)
			}
		})
	}
}

// TestCopyRemarks checks that the user gets the remarks of the machine without
// control characters.
func TestCopyRemarks(t *testing.T) {
	d, c, remarks := newDaemon(t)
	d.override = func(conn *frames.Conn, _ api.ArchiveRequest) bool {
		answer(conn, "one \x1b[31m\ntwo\nbanger: error: why\n", nil, 1)
		return true
	}
	err := c.run(t.Context(), c.getRequest("/"), nil, io.Discard)
	if err == nil || err.Error() != "machine box: why" || !slices.Equal(*remarks, []string{"banger: one  [31m", "banger: two"}) {
		t.Errorf("%v, remarks %q", err, *remarks)
	}
}

func TestTail(t *testing.T) {
	w := tail{limit: 10}
	for i := range 100 {
		if n, err := io.WriteString(&w, strconv.Itoa(i)); n == 0 || err != nil {
			t.Fatal(n, err)
		}
	}
	if got := string(w.data); got != "9596979899" {
		t.Errorf("kept %q", got)
	}
}
