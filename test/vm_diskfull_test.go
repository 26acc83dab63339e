//go:build e2e

package e2e

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// answerLimit bounds the time in which a command answers for a machine that stands still. It is the grace of a stop, and
// as long again.
const answerLimit = 20 * time.Second

// TestR1HostDiskFull fills the disk of the host while a machine writes. The machine stands still and says why, each
// command answers in time, and the machine goes on by itself when there is space.
func TestR1HostDiskFull(t *testing.T) {
	box := smallDiskSandbox(t, "900M")
	box.must(t, "kernel", "pull", "default")
	box.must(t, "image", "pull", "--plain-http", reference("debian:12"))
	var output lockedBuffer
	begin := func(script string) *exec.Cmd {
		cmd := box.command(context.Background(), "run", "--name", "full", reference("debian:12"), "sh", "-c", script)
		cmd.Stdout, cmd.Stderr = &output, &output
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	const write = "while [ ! -e /go ]; do sleep 0.1; done; dd if=/dev/urandom of=/big bs=1M count=60 conv=fsync; rm /go; "
	run := begin(write + "echo written; " + write)
	eventually(t, bootLimit, "the machine answers", func() bool { return box.run(t, "exec", "full", "true").code == 0 })

	box.fill(t)
	box.must(t, "exec", "full", "touch", "/go")
	paused := func() bool {
		return strings.Contains(box.must(t, "ps", "--format", "{{.Status}}").stdout, "paused (host disk full)")
	}
	eventually(t, bootLimit, "the machine is paused", paused)
	for _, args := range [][]string{
		{"exec", "full", "true"}, {"exec", "-d", "full", "true"}, {"kill", "-s", "TERM", "full"}, {"stats", "--no-stream", "full"},
		{"cp", "full:/etc/passwd", "-"}, {"ssh", "full", "true"},
	} {
		start := time.Now()
		got := box.run(t, args...)
		if took := time.Since(start); got.code == 0 || !strings.Contains(got.stderr, "host disk full") || took > answerLimit {
			t.Errorf("%s: code %d after %v: %s", strings.Join(args, " "), got.code, took, got.stderr)
		}
		t.Logf("%s: %v", args[0], time.Since(start).Round(time.Millisecond))
	}
	box.drain(t)
	start := time.Now()
	eventually(t, bootLimit, "the machine goes on", func() bool { return strings.Contains(output.String(), "written") })
	t.Logf("written %v after there was space", time.Since(start).Round(time.Millisecond))

	// The second time the user ends run, whose signal the command cannot get.
	box.fill(t)
	box.must(t, "exec", "full", "touch", "/go")
	eventually(t, bootLimit, "the machine is paused again", paused)
	start = time.Now()
	if err := run.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	exit := (*exec.ExitError)(nil)
	if err := run.Wait(); !errors.As(err, &exit) {
		t.Errorf("run: %v", err)
	}
	if took := time.Since(start); took > 2*answerLimit {
		t.Errorf("run ended %v after its signal", took)
	}
	t.Logf("run, after its signal: %v", time.Since(start).Round(time.Millisecond))
	if got := box.must(t, "inspect", "--format", "{{.State}} {{.Error}}", "full"); !strings.Contains(got.stdout, "exited machine ended while it was paused (host disk full)") {
		t.Errorf("inspect: %q", got.stdout)
	}

	// Without a byte left, a start fails or can be ended.
	start = time.Now()
	if got := box.run(t, "start", "full"); got.code == 0 {
		expectCode(t, box.run(t, "kill", "full"), 0)
	} else if !strings.Contains(got.stderr, "space") {
		t.Errorf("start on a full disk: %s", got.stderr)
	}
	t.Logf("start on a full disk: %v", time.Since(start).Round(time.Millisecond))
	box.drain(t)
	box.must(t, "start", "full")
	box.fill(t)
	box.must(t, "exec", "full", "touch", "/go")
	eventually(t, bootLimit, "the machine is paused for the third time", paused)
	start = time.Now()
	box.must(t, "stop", "-t", "1", "full")
	if took := time.Since(start); took > answerLimit {
		t.Errorf("stop took %v", took)
	}
	t.Logf("stop -t 1: %v", time.Since(start).Round(time.Millisecond))
	if strings.TrimSpace(box.must(t, "ps", "-q").stdout) != "" {
		t.Error("the machine is there after its stop")
	}
}

// smallDiskSandbox returns root's sandbox whose data folder is a file system of its own.
func smallDiskSandbox(t *testing.T, size string) sandbox {
	t.Helper()
	needRoot(t)
	need(t, "mkfs.ext4", "mount", "umount", "truncate", "qemu-system-x86_64")
	dir := t.TempDir()
	box := sandboxIn(t, dir, uint32(os.Geteuid()))
	disk := filepath.Join(t.TempDir(), "disk")
	for _, args := range [][]string{
		{"truncate", "-s", size, disk}, {"mkfs.ext4", "-q", "-m", "0", disk}, {"mount", "-o", "loop", disk, box.path("data")},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", args[0], err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", box.path("data")).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return box.closedWith(t)
}

// fill takes all free space of the data folder.
func (box sandbox) fill(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile(box.path("data", "filler"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for len(block) > 0 {
		if _, err = f.Write(block); err != nil {
			block = block[:len(block)/2]
		}
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}

// drain frees the space that fill has taken.
func (box sandbox) drain(t *testing.T) {
	t.Helper()
	if err := os.Remove(box.path("data", "filler")); err != nil {
		t.Fatal(err)
	}
}
