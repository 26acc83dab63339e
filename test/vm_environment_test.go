//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestR4OtherRuntimeFolder reaches a machine from environments with other runtime
// folders, as those of cron and su: through the daemon that runs, and through the next
// one after the daemon was killed.
func TestR4OtherRuntimeFolder(t *testing.T) {
	box := sharedUnprivilegedSandbox(t)
	other := box.path("run-of-cron")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(other, int(box.uid), int(box.uid)); err != nil {
		t.Fatal(err)
	}
	from := func(runtime string, args ...string) outcome {
		cmd := box.command(t.Context(), args...)
		cmd.Env = append(cmd.Env, "XDG_RUNTIME_DIR="+runtime) // the last one counts
		return finish(t, cmd, nil)
	}
	box.must(t, "run", "-d", "--name", "reached", reference("debian:12"), "sleep", "1000")
	defer box.run(t, "rm", "-f", "reached")
	folders := []string{other, box.path("none"), box.path("run")}
	for _, killed := range []bool{false, true} {
		for _, runtime := range folders {
			got := from(runtime, "exec", "reached", "echo", "hello")
			if got.code != 0 || got.stdout != "hello\n" {
				t.Errorf("exec from %s, daemon killed: %v: code %d, %q\n%s", runtime, killed, got.code, got.stdout, got.stderr)
			}
			if pid := from(runtime, "version").stdout; pid != box.must(t, "version").stdout {
				t.Errorf("from %s: another daemon: %s", runtime, pid)
			}
		}
		pid := strings.Fields(strings.TrimRight(box.must(t, "version").stdout, ")\n"))
		n, err := strconv.Atoi(pid[len(pid)-1])
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(box.path("none")); err == nil {
		t.Error("a runtime folder that did not exist was made")
	}
	got := from(other, "stop", "-t", "0", "reached")
	expectCode(t, got, 0)
	// The next test ends the daemon in its own runtime folder.
	expectCode(t, from(other, "daemon", "stop"), 0)
}

// TestR1LongArguments passes more arguments than one packet to the machine's agent has.
func TestR1LongArguments(t *testing.T) {
	box := sharedUnprivilegedSandbox(t)
	args := []string{"run", "--rm", reference("debian:12"), "sh", "-c", "echo $#", "-"}
	for range 10 {
		args = append(args, strings.Repeat("x", 120_000))
	}
	got := box.run(t, args...)
	expectCode(t, got, 0)
	if got.stdout != "10\n" {
		t.Errorf("stdout = %q, want 10", got.stdout)
	}
}

// TestR1OutputEnds runs a command whose reader goes, and one whose output is full.
func TestR1OutputEnds(t *testing.T) {
	box := sharedUnprivilegedSandbox(t)
	for _, row := range []struct{ shell, stdout, stderr string }{
		{`"$@" | head -n 1; echo "${PIPESTATUS[0]}"`, "y\n141\n", ""},
		{`"$@" >/dev/full; echo "$?"`, "125\n", "standard output: no space left on device"},
	} {
		cmd := box.command(t.Context(), "run", "--rm", "--name", "ends", reference("debian:12"), "yes")
		shell, err := exec.LookPath("bash")
		if err != nil {
			t.Fatal(err)
		}
		cmd.Path, cmd.Args = shell, append([]string{"bash", "-c", row.shell, "-"}, append([]string{cmd.Path}, cmd.Args[1:]...)...)
		got := finish(t, cmd, nil)
		if got.stdout != row.stdout || !strings.Contains(got.stderr, row.stderr) || row.stderr == "" && strings.Contains(got.stderr, "pipe") {
			t.Errorf("%s: stdout %q, stderr %q", row.shell, got.stdout, got.stderr)
		}
		if left := box.must(t, "ps", "-aq", "--filter", "name=ends").stdout; left != "" {
			t.Errorf("%s: the machine is left: %s", row.shell, left)
		}
	}
}
