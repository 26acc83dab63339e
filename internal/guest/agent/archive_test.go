package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/guest/client"
	"github.com/banger-vm/banger/internal/guest/tarcopy"
)

// requireRoot skips a test of something that the agent does only as root.
func requireRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("this test needs root")
	}
	t.Skip("this test needs root")
}

func runArchive(t *testing.T, c *client.Client, a guest.Archive, in io.Reader) (out, errs string, exit client.Exit) {
	t.Helper()
	var o, e bytes.Buffer
	p, err := c.Archive(testContext(t), a, client.Stdio{In: in, Out: &o, Err: &e})
	if err != nil {
		t.Fatal(err)
	}
	if exit, err = p.Wait(); err != nil {
		t.Fatal(err)
	}
	return o.String(), e.String(), exit
}

func TestArchiveGetAndPut(t *testing.T) {
	requireRoot(t)
	c := readyMachine(t).client(t)
	from := filepath.Join(t.TempDir(), "dir")
	content := strings.Repeat("0123456789", 500_000) // exceeds the channel's window
	if err := errors.Join(os.Mkdir(from, 0o750), os.WriteFile(from+"/big", []byte(content), 0o600), os.Chown(from+"/big", 12, 34),
		os.Chmod(from+"/big", os.ModeSetuid|0o711), os.Symlink("big", from+"/link")); err != nil {
		t.Fatal(err)
	}
	stream, errs, exit := runArchive(t, c, guest.Archive{Path: from, Op: guest.ArchiveGet}, nil)
	if exit.Code != 0 || errs != "" {
		t.Fatalf("get: %+v, %q", exit, errs)
	}
	for _, row := range []struct {
		keep bool
		uid  int
		mode os.FileMode
	}{{true, 12, os.ModeSetuid | 0o711}, {false, 0, 0o711}} {
		to := t.TempDir()
		out, errs, exit := runArchive(t, c, guest.Archive{Path: to, Op: guest.ArchivePut, KeepOwners: row.keep}, strings.NewReader(stream))
		if exit.Code != 0 || errs != "" || out != "" {
			t.Fatalf("put: %+v, %q, %q", exit, errs, out)
		}
		b, err := os.ReadFile(to + "/dir/link")
		if err != nil || string(b) != content {
			t.Errorf("%d bytes, %v", len(b), err)
		}
		if uid, mode := ownerOf(t, to+"/dir/big"); uid != row.uid || mode != row.mode {
			t.Errorf("keep owners %v: user %d, mode %v", row.keep, uid, mode)
		}
	}
}

func ownerOf(t *testing.T, path string) (uid int, mode os.FileMode) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		t.Fatal("no status")
	}
	return int(st.Uid), info.Mode()
}

func TestArchiveStat(t *testing.T) {
	requireRoot(t)
	c := readyMachine(t).client(t)
	dir := t.TempDir()
	if err := os.Symlink("..", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		path          string
		exists, isDir bool
		target        string
	}{
		{path: dir, exists: true, isDir: true},
		{path: dir[1:], exists: true, isDir: true},
		{path: dir + "/none"},
		{path: dir + "/link", exists: true, isDir: true, target: filepath.Dir(dir)},
	} {
		out, errs, exit := runArchive(t, c, guest.Archive{Path: row.path, Op: guest.ArchiveStat}, nil)
		var got tarcopy.Stat
		if err := json.Unmarshal([]byte(out), &got); err != nil || exit.Code != 0 || errs != "" {
			t.Errorf("%s: %v, %+v, %q", row.path, err, exit, errs)
		}
		if got.Mode != 0 != row.exists || got.IsDir != row.isDir || got.Target != row.target {
			t.Errorf("%s: got %+v", row.path, got)
		}
	}
}

func TestArchiveFails(t *testing.T) {
	requireRoot(t)
	m := readyMachine(t)
	c := m.client(t)
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name string
		a    guest.Archive
		in   string
		code int
		errs string
	}{
		{"get nothing", guest.Archive{Path: dir + "/none", Op: guest.ArchiveGet}, "", 1, "no such file or directory"},
		{"put into nothing", guest.Archive{Path: dir + "/none", Op: guest.ArchivePut}, "", 1, "no such file or directory"},
		{"put into a file", guest.Archive{Path: dir + "/file", Op: guest.ArchivePut}, "", 1, "not a directory"},
		{"put garbage", guest.Archive{Path: dir, Op: guest.ArchivePut}, strings.Repeat("garbage ", 100), 1, "tar stream"},
		{"look below a file", guest.Archive{Path: dir + "/file/x", Op: guest.ArchiveStat}, "", 1, "not a directory"},
		{"no operation", guest.Archive{Path: dir}, "", exitCannotRun, "no operation"},
		{"no path", guest.Archive{Op: guest.ArchiveGet}, "", exitCannotRun, "path"},
		{"a zero byte", guest.Archive{Path: "/\x00", Op: guest.ArchiveGet}, "", exitCannotRun, "path"},
		{"a long path", guest.Archive{Path: strings.Repeat("/x", maxArchivePath), Op: guest.ArchiveGet}, "", exitCannotRun, "path"},
	} {
		t.Run(row.name, func(t *testing.T) {
			out, errs, exit := runArchive(t, c, row.a, strings.NewReader(row.in))
			if out != "" || exit.Code != row.code || !strings.Contains(errs, row.errs) || strings.Count(errs, "\n") != 1 {
				t.Errorf("got %q, %q, %+v", out, errs, exit)
			}
		})
	}
	m.mustServe(t)
}

// If the client disconnects during a copy, the file stays as it was.
func TestArchiveInterrupted(t *testing.T) {
	requireRoot(t)
	m := readyMachine(t)
	c := m.client(t)
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/f", []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	from := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(from, bytes.Repeat([]byte("x"), 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	var stream bytes.Buffer
	if err := tarcopy.Pack(t.Context(), &stream, from, tarcopy.PackOptions{}); err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	p, err := c.Archive(testContext(t), guest.Archive{Path: dir, Op: guest.ArchivePut}, client.Stdio{In: r})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(stream.Bytes()[:stream.Len()/2]); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return len(names(t, dir)) == 2 }) // the temporary file exists
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := p.Wait(); !errors.Is(err, client.ErrLost) {
		t.Errorf("got %v, want ErrLost", err)
	}
	waitFor(t, func() bool { return len(names(t, dir)) == 1 })
	if b, err := os.ReadFile(dir + "/f"); err != nil || string(b) != "before" {
		t.Errorf("the file is %.20q, %v", b, err)
	}
	w.Close()
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range list {
		out = append(out, e.Name())
	}
	return out
}

// Requests that are not the JSON of an Archive are refused.
func TestArchiveMalformedRequest(t *testing.T) {
	m := readyMachine(t)
	for _, payload := range [][]byte{nil, {1, 2}, ssh.Marshal(stringPayload{"{"}), ssh.Marshal(stringPayload{`{"path":7}`})} {
		s, err := m.login(t).NewSession()
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := s.SendRequest(guest.RequestArchive, true, payload); ok || err != nil {
			t.Errorf("%q: %v, %v", payload, ok, err)
		}
		closeQuietly(s)
	}
	m.mustServe(t)
}
