//go:build e2e

package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// execHoles copies a file of 100 GiB with one block of data out of a machine, into it, and to a tar stream. With its
// holes it would take hours, and more space than there is.
func execHoles(t *testing.T, box sandbox) {
	const size, limit = 100 << 30, time.Minute
	start := time.Now()
	box.must(t, "exec", "shared", "sh", "-c", "truncate -s 100G holes && echo middle | dd of=holes bs=1 seek=50G conv=notrunc status=none")
	out := box.path("out", "holes")
	box.must(t, "cp", "shared:/home/dev/holes", out)
	var st syscall.Stat_t
	if err := syscall.Stat(out, &st); err != nil || st.Size != size || st.Blocks*512 > 1<<20 {
		t.Errorf("the copy has %d bytes, takes %d, %v", st.Size, st.Blocks*512, err)
	}
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data := make([]byte, len("middle\n"))
	if _, err := f.ReadAt(data, size/2); err != nil || string(data) != "middle\n" {
		t.Errorf("data %q, %v", data, err)
	}
	box.must(t, "cp", out, "shared:/tmp/back")
	got := box.must(t, "exec", "shared", "sh", "-c", "stat -c %s /tmp/back; test $(du -k /tmp/back | cut -f1) -lt 1024 && tail -c +$((50*1024*1024*1024+1)) /tmp/back | head -n 1 | tr -d '\\0'")
	if got.stdout != "107374182400\nmiddle\n" {
		t.Errorf("the copy in the machine: %q", got.stdout)
	}
	if took := time.Since(start); took > limit {
		t.Errorf("it took %v", took)
	}
	// Other programs read the stream of a file with holes.
	box.must(t, "exec", "shared", "sh", "-c", "truncate -s 3M few; echo end >>few")
	stream := box.must(t, "cp", "shared:/home/dev/few", "-").stdout
	expectCode(t, box.with(t, strings.NewReader(stream), "image", "import", "--name", "few:1", "tar:-"), 0)
	if !bytes.Contains([]byte(stream), []byte("end\n")) || len(stream) < 3<<20 {
		t.Errorf("a stream of %d bytes", len(stream))
	}
}

// TestCopyStopped copies into a machine that has never run, and out of it after its end. Its main command must not run
// for a copy, and its state must not change. The folders that a running machine mounts over are those of its disk.
func TestCopyStopped(t *testing.T) {
	box := sharedUnprivilegedSandbox(t)
	in := box.path("out", "cp-in")
	if err := os.WriteFile(in, []byte("input\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	const script = "cat /srv/in /run/in; stat -c '%u %a' /srv/in; echo output >/srv/out; chown games /srv/out; cat /proc/sys/kernel/random/boot_id >>/srv/runs"
	box.must(t, "create", "--name", "stopped", reference("debian:12"), "sh", "-c", script)
	t.Cleanup(func() { box.remove(t, "stopped") })
	const format = "{{.State}} {{.ExitCode}} {{.Started}} {{.Finished}}"
	before := box.must(t, "inspect", "--format", format, "stopped").stdout
	box.must(t, "cp", in, "stopped:/srv/in")
	box.must(t, "cp", in, "stopped:/run/in") // the same boot serves it
	for _, args := range [][]string{{"exec", "stopped", "true"}, {"stats", "--no-stream", "stopped"}} {
		if got := box.run(t, args...); got.code != 125 && got.code != 1 || !strings.Contains(got.stderr, "not running") {
			t.Errorf("%v: %+v", args, got)
		}
	}
	if after := box.must(t, "inspect", "--format", format, "stopped").stdout; after != before {
		t.Errorf("the copy changed the state from %q to %q", before, after)
	}
	got := box.run(t, "start", "-a", "stopped") // ends the boot of the copy
	expectCode(t, got, 0)
	if want := "input\ninput\n0 644\n"; got.stdout != want {
		t.Errorf("the machine has %q, want %q", got.stdout, want)
	}
	before = box.must(t, "inspect", "--format", format, "stopped").stdout
	logs := box.must(t, "logs", "--console", "stopped").stdout
	out := box.path("out", "cp-out")
	box.must(t, "cp", "stopped:/srv", out)
	if data, err := os.ReadFile(filepath.Join(out, "out")); err != nil || string(data) != "output\n" {
		t.Errorf("the copy has %q, %v", data, err)
	}
	if data, err := os.ReadFile(filepath.Join(out, "runs")); err != nil || bytes.Count(data, []byte("\n")) != 1 {
		t.Errorf("the command ran more than once: %q, %v", data, err)
	}
	if after := box.must(t, "inspect", "--format", format, "stopped").stdout; after != before {
		t.Errorf("the copy changed the state from %q to %q", before, after)
	}
	if after := box.must(t, "logs", "--console", "stopped").stdout; after != logs {
		t.Errorf("the copy wrote to the console's log: %q", strings.TrimPrefix(after, logs))
	}
	box.must(t, "rm", "stopped") // ends the boot of the copy
}
