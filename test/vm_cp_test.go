//go:build e2e

package e2e

import (
	"bytes"
	"os"
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
