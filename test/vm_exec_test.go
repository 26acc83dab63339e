//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
)

func execCodes(t *testing.T, box sandbox) {
	for _, row := range []struct {
		args []string
		want int
	}{
		{[]string{"true"}, 0}, {[]string{"false"}, 1}, {[]string{"sh", "-c", "exit 99"}, 99},
		{[]string{"/no/such/file"}, 127}, {[]string{"no-such-program"}, 127}, {[]string{"/etc/passwd"}, 126},
		{[]string{"sh", "-c", "kill -9 $$"}, 137}, {[]string{"sh", "-c", "kill -TERM $$"}, 143},
	} {
		t.Run(strings.Join(row.args, " "), func(t *testing.T) {
			expectCode(t, box.run(t, append([]string{"exec", "shared"}, row.args...)...), row.want)
		})
	}
	t.Run("no such machine", func(t *testing.T) { expectCode(t, box.run(t, "exec", "nobody-here", "true"), 125) })
}

// execSurroundings checks the user, folder and environment of a command. The demo's app image has user dev (1000), folder
// /home/dev and DEMO=1.
func execSurroundings(t *testing.T, box sandbox) {
	for _, row := range []struct{ name, flags, script, want string }{
		{"of the image", "", `echo "$(id -un):$(id -gn) $PWD $HOME $DEMO $FROM_RUN $HOSTNAME $(hostname)"`, "dev:dev /home/dev /home/dev 1 yes shared shared\n"},
		{"a user by number", "-u 0:0", `echo "$(id -u):$(id -g) $HOME"`, "0:0 /root\n"},
		{"a user by name and a group", "-u root:games", `echo "$(id -u):$(id -gn)"`, "0:games\n"},
		{"a number that no file knows", "-u 4321:9876", `echo "$(id -u):$(id -g)"`, "4321:9876\n"},
		{"a folder", "-w /tmp", "pwd", "/tmp\n"},
		{"a variable in place of the image's", "-e DEMO=2 -e X=a=b", `echo "$DEMO $X"`, "2 a=b\n"},
		{"standard error apart", "", "echo out; echo err >&2", "out\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			args := append([]string{"exec"}, strings.Fields(row.flags)...)
			got := box.run(t, append(args, "shared", "sh", "-c", row.script)...)
			expectCode(t, got, 0)
			if got.stdout != row.want {
				t.Errorf("stdout = %q, want %q (stderr %q)", got.stdout, row.want, got.stderr)
			}
		})
	}
	t.Run("a folder that is missing", func(t *testing.T) {
		got := box.run(t, "exec", "-u", "0", "-w", "/no/such", "shared", "pwd")
		expectCode(t, got, 126)
		if !strings.Contains(got.stderr, "/no/such: no such file or directory") {
			t.Errorf("stderr = %q", got.stderr)
		}
		expectCode(t, box.run(t, "exec", "shared", "test", "!", "-e", "/no"), 0)
	})
}

// execLimits checks the limits of open files and the scores for the OOM killer.
func execLimits(t *testing.T, box sandbox) {
	const files, want = "ulimit -Sn; ulimit -Hn; ulimit -n 65536; ulimit -n", "1048576\n1048576\n65536\n"
	for _, args := range [][]string{
		{"exec", "shared", "sh", "-c", files}, {"exec", "-u", "0", "shared", "sh", "-c", files}, {"ssh", "shared", files},
	} {
		if got := box.run(t, args...); got.stdout != want {
			t.Errorf("%s: %q, want %q (stderr %q)", strings.Join(args, " "), got.stdout, want, got.stderr)
		}
	}
	const scores = `for f in self 1; do cat /proc/$f/oom_score_adj; done
		for p in /proc/[0-9]*; do grep -qs '^@banger-agent' $p/cmdline && cat $p/oom_score_adj; done`
	if got := box.run(t, "exec", "-u", "0", "shared", "sh", "-c", scores); got.stdout != "0\n-1000\n-1000\n" {
		t.Errorf("scores of a command, process 1 and the agent: %q (stderr %q)", got.stdout, got.stderr)
	}
}

func execInput(t *testing.T, box sandbox) {
	got := box.with(t, strings.NewReader("one\ntwo\n"), "exec", "-i", "shared", "sort", "-r")
	if got.stdout != "two\none\n" {
		t.Errorf("stdout = %q", got.stdout)
	}
	got = box.with(t, strings.NewReader("unread"), "exec", "shared", "cat")
	if got.stdout != "" || got.code != 0 {
		t.Errorf("without -i: %+v", got)
	}
}

func execBulk(t *testing.T, box sandbox) {
	const size = 100 << 20
	data := make([]byte, size)
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	got := box.with(t, bytes.NewReader(data), "exec", "-i", "shared", "cat")
	expectCode(t, got, 0)
	if want, have := sha256.Sum256(data), sha256.Sum256([]byte(got.stdout)); want != have {
		t.Errorf("%d bytes came back of %d, with sha256 %x, want %x", len(got.stdout), size, have, want)
	}
	t.Logf("%.1f MiB/s each way", float64(size>>20)/time.Since(start).Seconds())
}

// execTerminal resizes a real terminal while a command has it.
func execTerminal(t *testing.T, box sandbox) {
	ctx, cancel := context.WithTimeout(t.Context(), runLimit)
	defer cancel()
	cmd := box.command(ctx, "exec", "-it", "shared", "sh", "-c", "stty size; read line; stty size; echo got $line; tty")
	cmd.SysProcAttr.Pdeathsig = 0
	cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
	terminal, err := pty.StartWithAttrs(cmd, &pty.Winsize{Rows: 33, Cols: 101}, cmd.SysProcAttr)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	var output lockedBuffer
	copied := make(chan struct{})
	go func() {
		io.Copy(&output, terminal) // it ends with EIO when the command does
		close(copied)
	}()
	eventually(t, bootLimit, "the first size", func() bool { return strings.Contains(output.String(), "33 101") })
	if err := pty.Setsize(terminal, &pty.Winsize{Rows: 44, Cols: 77}); err != nil {
		t.Fatal(err)
	}
	// Size and input travel separately, so the input must wait for the size.
	eventually(t, bootLimit, "the new size", func() bool {
		return strings.Contains(box.run(t, "exec", "-u", "0", "shared", "sh", "-c", "for p in /dev/pts/[0-9]*; do stty -F $p size; done").stdout, "44 77")
	})
	if _, err := io.WriteString(terminal, "hello\r"); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("exec: %v", err)
	}
	<-copied
	for _, want := range []string{"44 77", "got hello", "/dev/pts/"} {
		if !strings.Contains(output.String(), want) {
			t.Errorf("the terminal has no %q:\n%s", want, output.String())
		}
	}
}

// execSSH logs in and copies files with the host's ssh and scp.
func execSSH(t *testing.T, box sandbox) {
	need(t, "ssh", "scp", "sftp")
	config := box.path("out", "shared.conf")
	got := box.must(t, "ssh", "--config", "shared")
	if err := os.WriteFile(config, []byte(got.stdout), 0o644); err != nil {
		t.Fatal(err)
	}
	host := func(name string, args ...string) outcome {
		t.Helper()
		cmd := box.command(t.Context())
		cmd.Path, _ = exec.LookPath(name)
		cmd.Args = append([]string{name, "-F", config}, args...)
		return finish(t, cmd, nil)
	}
	if got := host("ssh", "shared", "echo $USER; exit 5"); got.code != 5 || strings.TrimSpace(got.stdout) != "root" {
		t.Errorf("ssh: %+v", got)
	}
	if got := host("ssh", "dev@shared", "id -un; pwd"); got.stdout != "dev\n/home/dev\n" {
		t.Errorf("ssh as another user: %+v", got)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		if conn, err := listener.Accept(); err == nil {
			io.WriteString(conn, "from the host\n")
			conn.Close()
		}
	}()
	back := "7070:" + listener.Addr().String()
	if got := host("ssh", "-o", "ExitOnForwardFailure=yes", "-R", back, "shared", "bash -c 'cat < /dev/tcp/127.0.0.1/7070'"); got.stdout != "from the host\n" {
		t.Errorf("ssh -R: %+v", got)
	}
	file := box.path("out", "script")
	if err := os.WriteFile(file, []byte("#!/bin/sh\necho run\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o751); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(file, int(box.uid), int(box.uid)); err != nil {
		t.Fatal(err)
	}
	expectCode(t, host("scp", "-p", file, "shared:/tmp/script"), 0)
	if got := box.must(t, "exec", "-u", "0", "shared", "sh", "-c", "stat -c %a /tmp/script && /tmp/script"); got.stdout != "751\nrun\n" {
		t.Errorf("after scp: %q", got.stdout)
	}
	expectCode(t, host("scp", "-p", "shared:/tmp/script", box.path("out", "back")), 0)
	if info, err := os.Stat(box.path("out", "back")); err != nil || info.Mode().Perm() != 0o751 {
		t.Errorf("back from the machine: %v, %v", info, err)
	}
}

// execExactness checks metadata that other tools lose, from inside the machine.
func execExactness(t *testing.T, box sandbox) {
	script := `stat -c '%a %u:%g' /usr/bin/sudo
getcap /usr/local/bin/python-low-ports
stat -c '%F %t,%T' /srv/odd/null
stat -c '%u:%g' /srv/odd/wide-owner
stat -c '%y' /srv/odd/old | cut -c1-19
stat -c '%h' /srv/odd/linked-2`
	got := box.must(t, "exec", "-u", "0", "-e", "TZ=UTC", "shared", "sh", "-c", script)
	want := `4755 0:0
/usr/local/bin/python-low-ports cap_net_bind_service,cap_net_raw=ep
character special file 1,3
3000000000:2999999999
1960-02-03 04:05:06
2
`
	if got.stdout != want {
		t.Errorf("inside the machine:\n%s\nwant:\n%s", got.stdout, want)
	}
}

func execNameTaken(t *testing.T, box sandbox) {
	got := box.run(t, "run", "--rm", "--name", "shared", reference("debian:12"), "true")
	expectCode(t, got, 125)
	if !strings.Contains(got.stderr, "name is in use") {
		t.Errorf("stderr = %q", got.stderr)
	}
	expectCode(t, box.run(t, "rm", "shared"), 1)
}
