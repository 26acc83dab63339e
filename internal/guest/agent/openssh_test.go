package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pkg/sftp"
)

// An openSSH runs the programs of the installed OpenSSH client, with options
// that connect them to the agent.
type openSSH struct{ options []string }

func newOpenSSH(t *testing.T, m *machine) *openSSH {
	t.Helper()
	for _, program := range []string{"ssh", "scp", "sftp"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	dir := t.TempDir()
	for name, content := range map[string]string{"key": m.keys.ClientPrivate, "known": "machine " + m.keys.HostPublic} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &openSSH{[]string{
		"-F", "none", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "HostKeyAlias=machine",
		"-o", "UserKnownHostsFile=" + filepath.Join(dir, "known"), "-o", "IdentityFile=" + filepath.Join(dir, "key"),
		"-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", fmt.Sprintf("ProxyCommand=%s proxy %s", exe, m.sshSocket(t)),
	}}
}

// run returns the program's standard output and exit code.
func (s *openSSH) run(t *testing.T, in io.Reader, program string, args ...string) (out string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append(s.options[:len(s.options):len(s.options)], args...)...)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = in, &stderr
	b, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if stderr.Len() > 0 {
		t.Logf("%s %q: %s", program, args, &stderr)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

func currentUser() string {
	if os.Geteuid() == 0 {
		return "root"
	}
	return fmt.Sprint(os.Geteuid())
}

func TestOpenSSHSessions(t *testing.T) {
	s := newOpenSSH(t, readyMachine(t))
	host := currentUser() + "@machine"
	for _, row := range []struct {
		name string
		in   string
		args []string
		out  string
		code int
	}{
		{"command", "", []string{host, "echo hi; exit 42"}, "hi\n", 42},
		{"input", "some words", []string{host, "cat; wc -c </dev/null"}, "some words0\n", 0},
		{"login shell", "case $0 in -*) echo login;; esac; exit 3\n", []string{"-T", host}, "login\n", 3},
		{"terminal", "", []string{"-tt", host, "tty >/dev/null && stty size; exit 4"}, "0 0\r\n", 4},
		{"environment", "", []string{"-o", "SetEnv=COLOUR=blue", host, "echo $COLOUR ${LOGNAME:+named}"}, "blue named\n", 0},
		{"not found", "", []string{host, "nosuchprogram 2>/dev/null"}, "", 127},
		{"no such user", "", []string{"nosuchuser@machine", "true"}, "", 126},
		{"other cipher", "", []string{"-c", "chacha20-poly1305@openssh.com", host, "echo hi"}, "hi\n", 0},
		{"no such cipher", "", []string{"-c", "aes256-ctr", host, "true"}, "", 255},
	} {
		t.Run(row.name, func(t *testing.T) {
			out, code := s.run(t, strings.NewReader(row.in), "ssh", row.args...)
			if code != row.code || out != row.out {
				t.Errorf("got %q, %d, want %q, %d", out, code, row.out, row.code)
			}
		})
	}
}

func TestOpenSSHCopies(t *testing.T) {
	s := newOpenSSH(t, readyMachine(t))
	host := currentUser() + "@machine"
	dir := t.TempDir()
	content := make([]byte, 3<<20)
	rand.Read(content)
	from := filepath.Join(dir, "from")
	if err := os.WriteFile(from, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(from, 0o4751); err != nil {
		t.Fatal(err)
	}
	check := func(path string, mode os.FileMode) {
		t.Helper()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: %d bytes, %v", path, len(got), err)
		}
		if info.Mode() != mode {
			t.Errorf("%s: mode %v, want %v", path, info.Mode(), mode)
		}
	}
	there, back := filepath.Join(dir, "there"), filepath.Join(dir, "back")
	if _, code := s.run(t, nil, "scp", "-p", from, host+":"+there); code != 0 {
		t.Fatalf("scp there: %d", code)
	}
	check(there, 0o751) // scp does not copy the setuid bit
	if _, code := s.run(t, nil, "scp", "-p", host+":"+there, back); code != 0 {
		t.Fatalf("scp back: %d", code)
	}
	check(back, 0o751)
	batch := fmt.Sprintf("put -p %s %s\nchmod 4711 %s\nmkdir %s/d\nls %s\n", from, dir+"/put", dir+"/put", dir, dir)
	if out, code := s.run(t, strings.NewReader(batch), "sftp", "-b", "-", host); code != 0 || !strings.Contains(out, dir+"/d") {
		t.Errorf("sftp: %q, %d", out, code)
	}
	info, err := os.Stat(dir + "/put")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir+"/put", 0o755); err != nil {
		t.Fatal(err)
	}
	check(dir+"/put", 0o755)
	t.Logf("sftp's chmod 4711 gives %v", info.Mode())
}

func TestOpenSSHForwards(t *testing.T) {
	s := newOpenSSH(t, readyMachine(t))
	l := echoListener(t, "tcp", "127.0.0.1:0")
	out, code := s.run(t, strings.NewReader("hello"), "ssh", "-W", l.Addr().String(), currentUser()+"@machine")
	if out != "hello" || code != 0 {
		t.Errorf("got %q, %d", out, code)
	}
}

// echoListener sends received data back.
func echoListener(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeQuietly(l) })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer closeQuietly(c)
				ignore(io.Copy(c, c))
			}()
		}
	}()
	return l
}

func TestDial(t *testing.T) {
	c := readyMachine(t).login(t)
	for _, l := range []net.Listener{
		echoListener(t, "tcp", "127.0.0.1:0"),
		echoListener(t, "unix", filepath.Join(t.TempDir(), "s")),
	} {
		conn, err := c.DialContext(testContext(t), l.Addr().Network(), l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		want := make([]byte, 5<<20)
		rand.Read(want)
		go func() {
			ignore(conn.Write(want))
			if c, ok := conn.(duplex); ok {
				ignore(c.CloseWrite())
			}
		}()
		if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got %d bytes, %v", l.Addr().Network(), len(got), err)
		}
		closeQuietly(conn)
	}
	for _, address := range []string{"127.0.0.1:1", "127.0.0.1:65535"} {
		if _, err := c.DialContext(testContext(t), "tcp", address); err == nil {
			t.Errorf("connected to %s", address)
		}
	}
	if _, err := c.DialContext(testContext(t), "unix", "/no/such"); err == nil {
		t.Error("connected to a missing socket")
	}
}

func TestSFTP(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the test logs in as root")
	}
	files, err := sftp.NewClient(readyMachine(t).login(t))
	if err != nil {
		t.Fatal(err)
	}
	defer closeQuietly(files)
	path := filepath.Join(t.TempDir(), "file")
	f, err := files.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadFrom(bytes.NewReader(make([]byte, 1<<20))); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Close(), files.Chmod(path, 0o640)); err != nil {
		t.Fatal(err)
	}
	info, err := files.Stat(path)
	if err != nil || info.Mode() != 0o640 || info.Size() != 1<<20 {
		t.Errorf("%v, %v", info, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o640 || info.Size() != 1<<20 {
		t.Errorf("on disk: %v, %v", info, err)
	}
}
