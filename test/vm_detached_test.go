//go:build e2e

package e2e

import (
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"
)

// TestR1RunGoesOn kills the CLI while its machine runs, and attaches to the machine again.
func TestR1RunGoesOn(t *testing.T) {
	box := sharedUnprivilegedSandbox(t)
	cmd := box.boot(t, "orphan", reference("debian:12"), "sh", "-c", "while ! test -e /tmp/end; do echo tick; sleep 0.1; done; exit 5")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	box.must(t, "exec", "orphan", "true")
	closeTerminal(t, box, "orphan")
	again := box.command(t.Context(), "attach", "orphan")
	var output lockedBuffer
	again.Stdout, again.Stderr = &output, &output
	if err := again.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, bootLimit, "the output comes again", func() bool { return strings.Contains(output.String(), "tick\n") })
	box.must(t, "exec", "orphan", "touch", "/tmp/end")
	again.Wait()
	expectCode(t, outcome{"", output.String(), again.ProcessState.ExitCode()}, 5)
	if got := box.must(t, "wait", "orphan"); got.stdout != "5\n" {
		t.Errorf("wait: %q", got.stdout)
	}
}

// closeTerminal closes a terminal in which the output of a machine is shown. The machine must go on.
func closeTerminal(t *testing.T, box sandbox, name string) {
	t.Helper()
	viewer := box.command(t.Context(), "attach", name)
	master, err := pty.Start(viewer)
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	if _, err := master.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := master.Close(); err != nil {
		t.Fatal(err)
	}
	viewer.Wait()
	if code := viewer.ProcessState.ExitCode(); code != 129 {
		t.Errorf("attach ended with code %d, want 129", code)
	}
	box.must(t, "exec", name, "true")
}

// TestR4DaemonKilled kills the daemon during a run. The machine must go on, and the run must attach to it again.
func TestR4DaemonKilled(t *testing.T) {
	box := sharedUnprivilegedSandbox(t)
	t.Cleanup(func() { box.remove(t, "survivor") })
	cmd := box.command(t.Context(), "run", "--rm", "--name", "survivor", reference("debian:12"), "sh", "-c",
		"echo up; while ! test -e /tmp/end; do sleep 0.1; done; sleep 1; echo done; exit 6")
	var output lockedBuffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, bootLimit, "the machine answers", func() bool { return box.run(t, "exec", "survivor", "true").code == 0 })
	found := regexp.MustCompile(`"pid": (\d+)`).FindStringSubmatch(box.must(t, "version", "--json").stdout)
	if found == nil {
		t.Fatal("no daemon runs")
	}
	pid, err := strconv.Atoi(found[1])
	if err != nil {
		t.Fatal(err)
	}
	watch := watchMachine(t, box, "survivor")
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, bootLimit, "the run is attached again", func() bool { return strings.Contains(output.String(), "attached to the machine again") })
	box.must(t, "exec", "survivor", "touch", "/tmp/end")
	cmd.Wait()
	expectCode(t, outcome{"", output.String(), cmd.ProcessState.ExitCode()}, 6)
	if !strings.Contains(output.String(), "done\n") {
		t.Errorf("output = %q", output.String())
	}
	watch()
	box.expectNoProcess(t)
}

// watchMachine starts commands that wait for a machine or follow it. The function that it returns checks that they went
// on until the machine ended, although the daemon was killed.
func watchMachine(t *testing.T, box sandbox, name string) (check func()) {
	t.Helper()
	type watcher struct {
		*exec.Cmd
		output lockedBuffer
		want   string
	}
	var watchers []*watcher
	for _, row := range []struct{ args, want string }{
		{"wait " + name, "6\n"},
		{"logs -f " + name, "up\ndone\n"},
		{"exec " + name + " sh -c", "began\nended\n"},
	} {
		args := strings.Fields(row.args)
		if args[0] == "exec" {
			args = append(args, "echo began; while ! test -e /tmp/end; do sleep 0.1; done; echo ended")
		}
		w := &watcher{Cmd: box.command(t.Context(), args...), want: row.want}
		w.Stdout, w.Stderr = &w.output, &w.output
		if err := w.Start(); err != nil {
			t.Fatal(err)
		}
		watchers = append(watchers, w)
	}
	for _, w := range watchers[1:] {
		first, _, _ := strings.Cut(w.want, "\n")
		eventually(t, bootLimit, first, func() bool { return strings.Contains(w.output.String(), first) })
	}
	return func() {
		t.Helper()
		for _, w := range watchers {
			if err := w.Wait(); err != nil || w.output.String() != w.want {
				t.Errorf("%v: %v, output %q, want %q", w.Args, err, w.output.String(), w.want)
			}
		}
	}
}

// TestR1Background executes each command on a machine in the background.
func TestR1Background(t *testing.T) {
	box := sharedUnprivilegedSandbox(t)
	t.Cleanup(func() { box.remove(t, "back") })
	got := box.must(t, "run", "-d", "--name", "back", "--label", "tier=test", reference("debian:12"), "sh", "-c",
		"trap 'echo hup' HUP; trap 'exit 3' TERM; echo to out; echo to err >&2; while :; do sleep 0.1; done")
	if id := strings.TrimSpace(box.must(t, "ps", "-q", "--filter", "label=tier=test").stdout); id == "" || id != strings.TrimSpace(got.stdout) {
		t.Errorf("run -d prints %q, ps %q", got.stdout, id)
	}
	eventually(t, bootLimit, "the command has written", func() bool {
		got := box.must(t, "logs", "back")
		return got.stdout == "to out\n" && got.stderr == "to err\n"
	})
	box.must(t, "kill", "-s", "HUP", "back")
	eventually(t, bootLimit, "the signal has its effect", func() bool {
		return strings.HasSuffix(box.must(t, "logs", "--tail", "1", "back").stdout, "hup\n")
	})
	if got := box.must(t, "stats", "--no-stream", "--format", "{{.Name}} {{gt .RSS 0}}", "back"); got.stdout != "back true\n" {
		t.Errorf("stats: %q", got.stdout)
	}
	box.must(t, "rename", "back", "renamed")
	box.must(t, "rename", "renamed", "back")
	box.must(t, "restart", "back")
	if got := box.must(t, "inspect", "--format", "{{.State}} {{.Name}}", "back"); got.stdout != "running back\n" {
		t.Errorf("after restart: %q", got.stdout)
	}
	expectCode(t, box.run(t, "rm", "back"), 1)
	eventually(t, bootLimit, "the command has written again", func() bool {
		return strings.Count(box.must(t, "logs", "back").stdout, "to out\n") == 2
	})
	box.must(t, "stop", "back")
	if got := box.must(t, "wait", "back"); got.stdout != "3\n" {
		t.Errorf("wait: %q", got.stdout)
	}
	got = box.must(t, "start", "back")
	if got.stdout != "back\n" {
		t.Errorf("start prints %q", got.stdout)
	}
	box.must(t, "rm", "-f", "back")
	box.expectNoProcess(t)
}

// execDetached starts detached commands, which wait for a file that a later command creates.
func execDetached(t *testing.T, box sandbox) {
	const wait = "echo said; until test -e /tmp/go; do sleep 0.1; done; "
	for _, flags := range []string{"-d", "-dit"} {
		got := box.must(t, "exec", flags, "shared", "sh", "-c", wait+"tty >/tmp/tty"+flags)
		if got.stdout != "" || got.stderr != "" {
			t.Errorf("%s: %+v", flags, got)
		}
	}
	box.must(t, "exec", "shared", "touch", "/tmp/go")
	eventually(t, bootLimit, "both commands go on", func() bool {
		return box.run(t, "exec", "shared", "sh", "-c", "test -s /tmp/tty-d -a -s /tmp/tty-dit").code == 0
	})
	got := box.must(t, "exec", "shared", "cat", "/tmp/tty-d", "/tmp/tty-dit")
	if want := "not a tty\n/dev/pts/"; !strings.HasPrefix(got.stdout, want) {
		t.Errorf("terminals are %q, want %q", got.stdout, want)
	}
	expectCode(t, box.run(t, "exec", "-d", "nobody-here", "true"), 125)
}
