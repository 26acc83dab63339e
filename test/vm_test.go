//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// bootLimit bounds the time that a machine takes to answer, under emulation on a busy host.
const bootLimit = 90 * time.Second

// shared has a sandbox for each user, in which machines run. Tests share them, because a kernel and images take long to
// pull.
var shared struct {
	sync.Mutex
	of map[uint32]sandbox
}

// sharedSandbox returns the sandbox of a user, with a kernel and the Debian image.
func sharedSandbox(t *testing.T, uid uint32) sandbox {
	t.Helper()
	need(t, "qemu-system-x86_64", "qemu-img", "apt-get")
	if uid != uint32(os.Geteuid()) {
		needRoot(t)
	}
	shared.Lock()
	defer shared.Unlock()
	if w, ok := shared.of[uid]; ok {
		return w
	}
	dir := filepath.Join(suite.scratch, "shared-"+strconv.Itoa(int(uid))) // it outlives the test
	box := sandboxIn(t, dir, uid)
	box.must(t, "kernel", "pull", "default")
	box.must(t, "image", "pull", "--plain-http", reference("debian:12"))
	if shared.of == nil {
		shared.of = map[uint32]sandbox{}
	}
	shared.of[uid] = box
	return box
}

// sharedUnprivilegedSandbox returns the shared sandbox of a user without privileges. Most tests use it.
func sharedUnprivilegedSandbox(t *testing.T) sandbox {
	t.Helper()
	return sharedSandbox(t, unprivilegedUID)
}

// boot runs a machine in the background and waits until it answers. The end of the test removes it.
func (box sandbox) boot(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := box.command(ctx, append([]string{"run", "--name", name, "--plain-http"}, args...)...)
	var output lockedBuffer
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGKILL) }
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		if t.Failed() {
			t.Logf("run %s:\n%s\nconsole:\n%s", name, output.String(), box.consoleTail())
		}
		box.remove(t, name)
	})
	eventually(t, bootLimit, "machine "+name+" answers", func() bool {
		select {
		case <-ended:
			t.Fatalf("machine %s ended: %s", name, output.String())
		default:
		}
		return box.run(t, "exec", name, "/bin/true").code == 0
	})
	// The tests check that QEMU is gone afterwards, so they must be able to find it now.
	if pid := box.monitorOf(t, name); !box.holds("/proc/" + strconv.Itoa(pid)) {
		t.Errorf("QEMU, process %d, is not found as a process of this sandbox", pid)
	}
	return cmd
}

// remove removes a machine at the end of a test, when the test's context has ended.
func (box sandbox) remove(t *testing.T, name string) {
	t.Helper()
	for _, verb := range []string{"inspect", "logs"} {
		if t.Failed() {
			got := finish(t, box.command(context.Background(), verb, name), nil)
			t.Logf("%s %s:\n%s%s", verb, name, got.stdout, got.stderr)
		}
	}
	got := finish(t, box.command(context.Background(), "rm", "-f", name), nil)
	if got.code != 0 && !strings.Contains(got.stderr, "no such machine") {
		t.Errorf("rm %s: %s", name, got.stderr)
	}
}

// A lockedBuffer can be read while a process writes to it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// expectCode checks the exit code, and reports the output if it differs.
func expectCode(t *testing.T, got outcome, want int) {
	t.Helper()
	if got.code != want {
		t.Errorf("exit code %d, want %d\nstdout: %s\nstderr: %s", got.code, want, got.stdout, got.stderr)
	}
}

// with runs banger with the given standard input.
func (box sandbox) with(t *testing.T, stdin io.Reader, args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), runLimit)
	defer cancel()
	cmd := box.command(ctx, args...)
	cmd.Stdin = stdin
	return finish(t, cmd, nil)
}

// TestR1Run runs a machine as root and as another user, and checks that it leaves nothing behind.
func TestR1Run(t *testing.T) {
	for _, user := range []struct {
		name string
		uid  uint32
	}{{"root", 0}, {"plain user", unprivilegedUID}} {
		t.Run(user.name, func(t *testing.T) {
			box := sharedSandbox(t, user.uid)
			before := box.inventory(t)
			got := box.run(t, "run", "--rm", reference("debian:12"), "sh", "-c", "id -u; cat /proc/1/comm; exit 7")
			expectCode(t, got, 7)
			if lines := strings.Fields(got.stdout); len(lines) != 2 || lines[0] != "0" {
				t.Errorf("stdout = %q", got.stdout)
			}
			box.expectNoProcess(t)
			if got := box.run(t, "ps", "-aq"); got.stdout != "" {
				t.Errorf("machines are left: %s", got.stdout)
			}
			box.expectNoMore(t, append(before, box.machineFiles()...))
		})
	}
}

// machineFiles returns the files that the first machine creates and that stay: locks, caches, files of the daemon.
func (box sandbox) machineFiles() []string {
	out := []string{"/run/banger", "/data/banger/machines", "/data/banger/machines/.lock", "/cache/banger/kvm.json", "/cache/banger/kvm-noted",
		"/data/banger/daemon.lock", "/data/banger/daemon.start"}
	files, _ := filepath.Glob(box.path("cache", "banger", "initramfs*"))
	for _, pattern := range []string{"cache/banger/initramfs/*", "run/banger/*", "run/banger/*/daemon.*"} {
		more, _ := filepath.Glob(box.path(pattern))
		files = append(files, more...)
	}
	for _, path := range files {
		out = append(out, strings.TrimPrefix(path, box.dir))
	}
	return out
}

func TestR1RunSignalAndInput(t *testing.T) {
	box := sharedUnprivilegedSandbox(t)
	t.Run("137 by a signal", func(t *testing.T) {
		expectCode(t, box.run(t, "run", "--rm", reference("debian:12"), "sh", "-c", "kill -9 $$"), 137)
	})
	t.Run("standard input", func(t *testing.T) {
		got := box.with(t, strings.NewReader("hi\n"), "run", "--rm", "-i", reference("debian:12"), "cat")
		expectCode(t, got, 0)
		if got.stdout != "hi\n" {
			t.Errorf("stdout = %q, want hi", got.stdout)
		}
	})
	t.Run("timeout", func(t *testing.T) {
		expectCode(t, box.run(t, "run", "--rm", "--timeout=2s", reference("debian:12"), "sleep", "1000"), 124)
	})
	t.Run("garbage on the agent's port", func(t *testing.T) {
		got := box.run(t, "run", "--name", "garbage", "--plain-http", "-u", "0", reference("app:1"), "python3", "-c", portGarbage)
		t.Cleanup(func() { box.remove(t, "garbage") })
		expectCode(t, got, 125)
		const want = "agent protocol violated: bytes that are no frame"
		for _, text := range []string{got.stderr, box.must(t, "inspect", "--format", "{{.Error}}", "garbage").stdout,
			box.must(t, "logs", "--console", "garbage").stdout} {
			if !strings.Contains(text, want) {
				t.Errorf("%q, want %q in it", text, want)
			}
		}
	})
	t.Run("out of memory", func(t *testing.T) {
		got := box.run(t, "run", "--rm", "--memory=192M", reference("debian:12"), "sh", "-c", "exec tail /dev/zero")
		expectCode(t, got, 137)
		if !strings.Contains(got.stderr, "out of memory") {
			t.Errorf("stderr = %q", got.stderr)
		}
	})
	t.Run("out of memory by files", func(t *testing.T) {
		// The memory of a tmpfs belongs to no process, so the OOM killer chooses among all of them.
		got := box.run(t, "run", "--rm", "--memory=192M", reference("debian:12"), "sh", "-c",
			"mount -o remount,size=100% /dev/shm; dd if=/dev/zero of=/dev/shm/x bs=1M; rm /dev/shm/x; echo alive")
		if got.stdout != "alive\n" && !strings.Contains(got.stderr, "out of memory") {
			t.Errorf("code %d, stdout %q, stderr %q, want alive or the reason", got.code, got.stdout, got.stderr)
		}
	})
	t.Run("read-only", func(t *testing.T) {
		got := box.run(t, "run", "--rm", "--read-only", reference("debian:12"), "sh", "-c", "echo x >/srv/x || exit 30")
		expectCode(t, got, 30)
	})
}

// portGarbage is a program that writes random bytes to the agent's port, which the agent alone may have open: it takes the
// agent's descriptor by pidfd_getfd(2), 438 on all architectures.
const portGarbage = `
import ctypes, glob, os, time
for path in glob.glob("/proc/[0-9]*/fd/*"):
    try:
        if "vport" in os.readlink(path):
            pid, fd = int(path.split("/")[2]), int(path.split("/")[4])
            port = ctypes.CDLL(None).syscall(438, os.pidfd_open(pid), fd, 0)
            os.write(port, os.urandom(65536) + b"\0")
    except OSError:
        pass
time.sleep(1000)
`

// TestR1BootableCheck runs commands that banger must refuse before it creates a machine.
func TestR1BootableCheck(t *testing.T) {
	box := sharedUnprivilegedSandbox(t)
	for _, row := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"no such command", []string{reference("debian:12"), "no-such-program"}, 127, "no such file in the image"},
		{"a folder", []string{reference("debian:12"), "/etc"}, 126, "is a directory"},
		{"not executable", []string{reference("debian:12"), "/etc/passwd"}, 126, "not executable"},
		{"a broken user flag", []string{"--cpus=0x", reference("debian:12")}, 2, "--cpus"},
		{"too little memory", []string{"--memory=1M", reference("debian:12")}, 2, "memory"},
		{"an unknown kernel", []string{"--kernel=nothing", "--pull=never", reference("debian:12")}, 125, "kernel"},
		{"an image that is not in the store", []string{"--pull=never", "no-such-image"}, 125, "no such image"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := box.run(t, append([]string{"run", "--rm"}, row.args...)...)
			expectCode(t, got, row.code)
			if !strings.Contains(got.stderr, row.want) {
				t.Errorf("stderr = %q, want %q in it", got.stderr, row.want)
			}
		})
	}
}

// TestR1Machine boots one machine for all tests that can share it.
func TestR1Machine(t *testing.T) {
	box := sharedUnprivilegedSandbox(t)
	box.boot(t, "shared", "--rm", "--memory=512M", "--disk-size=3G", "-e", "FROM_RUN=yes", reference("app:1"), "sleep", "infinity")
	for _, sub := range []struct {
		name string
		run  func(*testing.T, sandbox)
	}{
		{"exit codes", execCodes}, {"surroundings", execSurroundings}, {"detached", execDetached}, {"input", execInput},
		{"100 MiB both ways", execBulk}, {"terminal", execTerminal}, {"ssh and scp", execSSH},
		{"limits", execLimits}, {"exactness", execExactness}, {"holes", execHoles}, {"the disk grew", execGrown}, {"the disk shrinks", execDeleted}, {"a name is taken", execNameTaken},
	} {
		t.Run(sub.name, func(t *testing.T) { sub.run(t, box) })
	}
}

// TestR1Signals interrupts a run one to three times, like a user who presses Ctrl-C.
func TestR1Signals(t *testing.T) {
	box := sharedUnprivilegedSandbox(t)
	for _, row := range []struct {
		name, script string
		times, code  int
	}{
		{"the first goes to the command", `trap 'exit 42' INT`, 1, 42},
		{"the second stops the machine", `trap 'touch /tmp/int' INT; trap 'exit 9' TERM`, 2, 9},
		{"the third kills it", `trap 'touch /tmp/int' INT; trap '' TERM`, 3, 130},
	} {
		t.Run(row.name, func(t *testing.T) {
			expectCode(t, interrupt(t, box, row.script, row.times), row.code)
			box.expectNoProcess(t)
		})
	}
}

// interrupt sends SIGINT to a run of the script the given number of times, and waits for the effect of each before the
// next.
func interrupt(t *testing.T, box sandbox, script string, times int) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), runLimit)
	defer cancel()
	cmd := box.command(ctx, "run", "--rm", "--name", "signals", reference("debian:12"), "sh", "-c",
		script+"; touch /tmp/ready; while :; do sleep 0.1; done")
	var stderr lockedBuffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	inside := func(file string) func() bool {
		return func() bool { return box.run(t, "exec", "signals", "test", "-e", file).code == 0 }
	}
	for _, ready := range []func() bool{
		inside("/tmp/ready"), inside("/tmp/int"), func() bool { return strings.Contains(stderr.String(), "once more to kill it") },
	}[:times] {
		eventually(t, bootLimit, "the machine is ready for a signal", ready)
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
	}
	cmd.Wait()
	return outcome{"", stderr.String(), cmd.ProcessState.ExitCode()}
}
