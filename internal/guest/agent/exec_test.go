package agent

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/guest/client"
)

// run runs a command and waits for it.
func run(t *testing.T, c *client.Client, command guest.Command, in io.Reader) (stdout, stderr string, exit client.Exit) {
	t.Helper()
	var out, errs bytes.Buffer
	command = asCurrentUser(command)
	command.Stdin = in != nil
	p, err := c.Start(testContext(t), command, client.Stdio{In: in, Out: &out, Err: &errs})
	if err != nil {
		t.Fatal(err)
	}
	if exit, err = p.Wait(); err != nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), exit
}

// asCurrentUser sets a command's user to the current user if it has none. Only
// root may run commands as root.
func asCurrentUser(c guest.Command) guest.Command {
	if c.User == "" && os.Geteuid() != 0 {
		c.User = currentUser()
	}
	return c
}

func sh(script string) guest.Command {
	return asCurrentUser(guest.Command{Args: []string{"sh", "-c", script}})
}

// TestArgumentsUpToARGMAX runs a command whose request takes several SSH packets.
func TestArgumentsUpToARGMAX(t *testing.T) {
	c := readyMachine(t).client(t)
	word := strings.Repeat("x", 100<<10)
	args := []string{"sh", "-c", `echo $# ${#15}`, "-"}
	for range 15 {
		args = append(args, word)
	}
	if out, errs, exit := run(t, c, guest.Command{Args: args}, nil); out != "15 102400\n" || exit.Code != 0 {
		t.Errorf("stdout %q, stderr %q, code %d", out, errs, exit.Code)
	}
	// The kernel refuses a word of more than 128 KiB.
	_, errs, exit := run(t, c, guest.Command{Args: []string{"true", word + word}}, nil)
	if exit.Code != 126 || !strings.Contains(errs, "argument list too long") {
		t.Errorf("stderr %q, code %d", errs, exit.Code)
	}
}

func TestExitCodes(t *testing.T) {
	c := readyMachine(t).client(t)
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	plain := write("plain", "#!/bin/sh\n", 0o644)
	garbage := write("garbage", "\x01\x02 no program", 0o755)
	orphan := write("orphan", "#!/no/such/interpreter\n", 0o755)
	for _, row := range []struct {
		name    string
		command guest.Command
		code    int
		signal  string
		stderr  string
	}{
		{"0", sh("exit 0"), 0, "", ""},
		{"1", sh("exit 1"), 1, "", ""},
		{"255", sh("exit 255"), 255, "", ""},
		{"not executable", guest.Command{Args: []string{plain}}, 126, "", "permission denied"},
		{"not executable in PATH", guest.Command{Args: []string{"plain"}, Env: []string{"PATH=" + dir}}, 126, "", "permission denied"},
		{"no program's format", guest.Command{Args: []string{garbage}}, 126, "", "exec format error"},
		{"a folder", guest.Command{Args: []string{dir}}, 126, "", "permission denied"},
		{"not there", guest.Command{Args: []string{"/no/such"}}, 127, "", "no such file"},
		{"not in PATH", guest.Command{Args: []string{"nosuchprogram"}}, 127, "", "nosuchprogram"},
		{"PATH without it", guest.Command{Args: []string{"sh"}, Env: []string{"PATH=" + dir}}, 127, "", "sh"},
		{"no interpreter", guest.Command{Args: []string{orphan}}, 127, "", "no such file"},
		{"below a file", guest.Command{Args: []string{plain + "/x"}}, 127, "", "not a directory"},
		{"working directory is a file", guest.Command{Args: []string{"true"}, Dir: plain}, 126, "", "plain"},
		{"working directory below a file", guest.Command{Args: []string{"true"}, Dir: plain + "/x"}, 126, "", "working directory"},
		{"no user", guest.Command{Args: []string{"true"}, User: "nosuchuser"}, 126, "", "nosuchuser"},
		{"no group", guest.Command{Args: []string{"true"}, User: "0:nosuchgroup"}, 126, "", "nosuchgroup"},
		{"no command", guest.Command{}, 126, "", "no command"},
		{"a zero byte", guest.Command{Args: []string{"true", "a\x00b"}}, 126, "", "zero byte"},
		{"bad environment", guest.Command{Args: []string{"true"}, Env: []string{"NAME"}}, 126, "", "NAME=value"},
		{"KILL", sh("kill -9 $$"), 137, "KILL", ""},
		{"TERM", sh("kill -15 $$"), 143, "TERM", ""},
		{"real-time signal", sh("kill -37 $$"), 165, "RTMIN+3", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, stderr, exit := run(t, c, row.command, nil)
			if exit.Code != row.code || exit.Signal != row.signal {
				t.Errorf("got %+v, want %d %s", exit, row.code, row.signal)
			}
			if !strings.Contains(stderr, row.stderr) || row.stderr != "" && strings.Count(stderr, "\n") != 1 {
				t.Errorf("standard error %q, want one line with %q", stderr, row.stderr)
			}
		})
	}
}

func TestInputAndOutput(t *testing.T) {
	c := readyMachine(t).client(t)
	out, errs, exit := run(t, c, sh("cat; echo done; echo problem >&2"), strings.NewReader("hi\n"))
	if out != "hi\ndone\n" || errs != "problem\n" || exit.Code != 0 {
		t.Errorf("got %q, %q, %+v", out, errs, exit)
	}
	// Without input, the process reads EOF at once.
	if out, _, _ := run(t, c, sh("cat; echo done"), nil); out != "done\n" {
		t.Errorf("without input got %q", out)
	}
	// A process that does not read its input ends even if the input is endless.
	if out, _, _ := run(t, c, sh("echo done"), endless{}); out != "done\n" {
		t.Errorf("with endless input got %q", out)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// All byte values, in more data than any buffer holds, pass unchanged in both
// directions.
func TestBinaryClean(t *testing.T) {
	size := int64(100 << 20)
	if testing.Short() {
		size = 8 << 20
	}
	c := readyMachine(t).client(t)
	sent, back := sha256.New(), sha256.New()
	command := asCurrentUser(guest.Command{Args: []string{"cat"}, Stdin: true})
	in := io.TeeReader(io.LimitReader(rand.Reader, size), sent)
	count := &counter{w: back}
	p, err := c.Start(testContext(t), command, client.Stdio{In: in, Out: count})
	if err != nil {
		t.Fatal(err)
	}
	if exit, err := p.Wait(); err != nil || exit.Code != 0 {
		t.Fatal(exit, err)
	}
	if count.n != size || !bytes.Equal(sent.Sum(nil), back.Sum(nil)) {
		t.Fatalf("%d of %d bytes came back, or with other content", count.n, size)
	}
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return c.w.Write(p)
}

// The output of a process is complete even if the reader is slow and the
// process ended long before.
func TestOutputIsComplete(t *testing.T) {
	c := readyMachine(t).client(t)
	r, w := io.Pipe()
	const size = 3 << 20
	p, err := c.Start(testContext(t), sh("head -c 3145728 /dev/zero"), client.Stdio{Out: w})
	if err != nil {
		t.Fatal(err)
	}
	<-time.After(lingerWait + lingerWait/2) // longer than the wait for children
	go func() {
		ignore(p.Wait())
		closeQuietly(w)
	}()
	if n, err := io.Copy(io.Discard, r); n != size || err != nil {
		t.Errorf("got %d bytes, %v, want %d", n, err, size)
	}
}

// A child that keeps the output open delays the end of its parent only for
// lingerWait. Its output within that time arrives, and it keeps running.
func TestChildOutlivesProcess(t *testing.T) {
	c := readyMachine(t).client(t)
	mark := filepath.Join(t.TempDir(), "mark")
	begin := time.Now()
	out, _, exit := run(t, c, sh("(sleep .2; echo late; sleep 3; echo never; echo lives >"+mark+") & echo first"), nil)
	if out != "first\nlate\n" || exit.Code != 0 {
		t.Errorf("got %q, %+v", out, exit)
	}
	if took := time.Since(begin); took > 2800*time.Millisecond {
		t.Errorf("waited %v for the child", took)
	}
	waitFor(t, func() bool { _, err := os.Stat(mark); return err == nil })
}

func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	ctx := testContext(t)
	for !condition() {
		select {
		case <-ctx.Done():
			t.Fatal("timed out")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestEnvironment(t *testing.T) {
	c := readyMachine(t).client(t)
	command := guest.Command{Args: []string{"env"}, Env: []string{"A=1", "B=x y=z", "A=2", "EMPTY="}}
	out, _, _ := run(t, c, command, nil)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	want := []string{"A=2", "B=x y=z", "EMPTY=", "HOME=", "PATH=" + guest.DefaultPath}
	if len(lines) != len(want) {
		t.Fatalf("environment %q, want %q", lines, want)
	}
	for i := range want {
		if lines[i] != want[i] && (want[i] != "HOME=" || !strings.HasPrefix(lines[i], want[i]+"/")) {
			t.Errorf("environment %q, want %q", lines[i], want[i])
		}
	}
	command.Env = []string{"HOME=/h", "PATH=/nowhere:/bin:/usr/bin"}
	if out, _, _ := run(t, c, command, nil); out != "HOME=/h\nPATH=/nowhere:/bin:/usr/bin\n" {
		t.Errorf("environment %q", out)
	}
}

func TestWorkingDirectory(t *testing.T) {
	c := readyMachine(t).client(t)
	dir := filepath.Join(t.TempDir(), "made", "here")
	pwd := guest.Command{Args: []string{"pwd"}, Dir: dir}
	_, errs, exit := run(t, c, pwd, nil)
	if exit.Code != exitCannotRun || !strings.Contains(errs, dir+": no such file or directory") {
		t.Errorf("a further command in a missing folder: %q, %v", errs, exit)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the missing folder: %v", err)
	}
	main := pwd
	main.Main = true
	if out, _, _ := run(t, c, main, nil); out != dir+"\n" {
		t.Errorf("working directory %q, want %q", out, dir)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != dirMode {
		t.Errorf("made %v, %v", info, err)
	}
	if out, _, _ := run(t, c, guest.Command{Args: []string{"pwd"}}, nil); out != "/\n" {
		t.Errorf("working directory %q, want /", out)
	}
	// A relative program path and a relative element of PATH are relative to
	// the working directory.
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho it is me\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, command := range []guest.Command{
		{Args: []string{"./script"}, Dir: dir},
		{Args: []string{"script"}, Dir: filepath.Dir(dir), Env: []string{"PATH=here"}},
	} {
		if out, errs, _ := run(t, c, command, nil); out != "it is me\n" {
			t.Errorf("%+v: got %q, %q", command, out, errs)
		}
	}
}

func TestUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may change users")
	}
	c := readyMachine(t).client(t)
	for _, row := range []struct{ user, want string }{
		{"", "0:0"}, {"root", "0:0"}, {"0", "0:0"}, {"12345", "12345:0"}, {"12345:678", "12345:678"},
		{"daemon", "1:1"}, {"1", "1:1"}, {"daemon:sys", "1:3"}, {"daemon:3", "1:3"},
	} {
		out, errs, _ := run(t, c, guest.Command{Args: []string{"sh", "-c", "echo $(id -u):$(id -g)"}, User: row.user}, nil)
		if strings.TrimSpace(out) != row.want {
			t.Errorf("user %q: got %q, %q, want %q", row.user, out, errs, row.want)
		}
	}
	if out, _, _ := run(t, c, guest.Command{Args: []string{"sh", "-c", "id -G; echo $HOME"}, User: "1234"}, nil); out != "0\n/\n" {
		t.Errorf("a user without an entry has %q", out)
	}
}

// Commands wait for the root file system.
func TestCommandWaitsForRoot(t *testing.T) {
	m := newMachine(t, nil)
	c := m.client(t)
	type result struct {
		out  string
		exit client.Exit
	}
	done := make(chan result)
	go func() {
		out, _, exit := run(t, c, sh("echo hello"), nil)
		done <- result{out, exit}
	}()
	if s, err := c.Status(testContext(t)); err != nil || s.Ready != 0 || s.Uptime <= 0 {
		t.Errorf("status before the root is in place: %+v, %v", s, err)
	}
	select {
	case r := <-done:
		t.Fatalf("the command ran without a root: %+v", r)
	default:
	}
	m.rootReady(t)
	if r := <-done; r.out != "hello\n" || r.exit.Code != 0 {
		t.Errorf("got %+v", r)
	}
	s, err := c.Status(testContext(t))
	if err != nil || s.Ready <= 0 || s.Memory <= 0 || s.Version != guest.Version || len(s.Notes) != 1 || s.Init != guest.InitBanger {
		t.Errorf("status: %+v, %v", s, err)
	}
}
