package initrd

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/u-root/u-root/pkg/cpio"

	"github.com/banger-vm/banger/internal/guest"
)

func modules() []Module {
	return []Module{{"virtio_ring.ko", []byte("ring")}, {"virtio.ko", bytes.Repeat([]byte("v"), 4099)}}
}

func initramfs(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Base(&b, []byte("program"), modules()); err != nil {
		t.Fatal(err)
	}
	// The kernel looks for the next archive at an offset that is a multiple of
	// 4.
	if b.Len()%4 != 0 {
		t.Errorf("the base has %d bytes", b.Len())
	}
	if err := Machine(&b, guest.Config{Version: guest.Version, Hostname: "box", HostKey: "secret"}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// readAll reads archives that follow each other, as the kernel does: it skips
// zeros between them.
func readAll(t *testing.T, b []byte) []cpio.Record {
	t.Helper()
	var records []cpio.Record
	for archives := 0; ; archives++ {
		skipped := len(b) - len(bytes.TrimLeft(b, "\x00"))
		b = b[skipped:]
		if len(b) == 0 {
			if archives != 2 {
				t.Errorf("%d archives, want 2", archives)
			}
			return records
		}
		r := bytes.NewReader(b)
		rr := cpio.Newc.Reader(r)
		for {
			rec, err := rr.ReadRecord()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			records = append(records, rec)
		}
		end := bytes.Index(b, []byte(cpio.Trailer))
		b = b[end+len(cpio.Trailer):]
	}
}

func TestArchivesHoldTheFilesOfTheBoot(t *testing.T) {
	want := []struct {
		name, content string
		mode          uint64
	}{
		{"dev", "", 0o040755},
		{"proc", "", 0o040755},
		{"sys", "", 0o040755},
		{"sysroot", "", 0o040755},
		{"banger", "", 0o040755},
		{"banger/modules", "", 0o040755},
		{"dev/console", "", 0o020600},
		{"init", "program", 0o100755},
		{"banger/modules/virtio_ring.ko", "ring", 0o100600},
		{"banger/modules/virtio.ko", strings.Repeat("v", 4099), 0o100600},
		{"banger", "", 0o040700},
		{"banger/config.json", "", 0o100600},
	}
	got := readAll(t, initramfs(t))
	if len(got) != len(want) {
		t.Fatalf("%d files, want %d: %v", len(got), len(want), got)
	}
	for i, w := range want {
		g := got[i]
		if g.Name != w.name || g.Mode != w.mode || g.UID != 0 || g.GID != 0 || g.MTime != 0 {
			t.Errorf("file %d is %v, want %s %o of root and of 1970", i, g.Info, w.name, w.mode)
		}
		content := make([]byte, g.FileSize)
		if _, err := g.ReadAt(content, 0); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		if w.name == "banger/config.json" {
			var c guest.Config
			if err := json.Unmarshal(content, &c); err != nil || c.Hostname != "box" || c.HostKey != "secret" {
				t.Errorf("configuration: %+v, %v", c, err)
			}
		} else if string(content) != w.content {
			t.Errorf("%s has %d bytes, want %d", w.name, len(content), len(w.content))
		}
		if w.name == "dev/console" && (g.Rmajor != 5 || g.Rminor != 1) {
			t.Errorf("console is device %d, %d", g.Rmajor, g.Rminor)
		}
	}
}

func TestOutputIsReproducible(t *testing.T) {
	if !bytes.Equal(initramfs(t), initramfs(t)) {
		t.Error("two initramfs of one input differ")
	}
}

// cpio(1) stops at the first trailer, so it reads the output of Base.
func TestCpioReadsBase(t *testing.T) {
	if _, err := exec.LookPath("cpio"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	cmd := exec.CommandContext(t.Context(), "cpio", "--quiet", "-t")
	cmd.Stdin = bytes.NewReader(initramfs(t))
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if names := strings.Fields(string(out)); !slices.Contains(names, "init") || !slices.Contains(names, "banger/modules/virtio.ko") {
		t.Errorf("cpio lists %q", names)
	}
}

func TestBaseRefusesModuleNames(t *testing.T) {
	for _, name := range []string{"", ".", "..", "../init", "a/b", "a\x00b"} {
		if err := Base(io.Discard, nil, []Module{{Name: name}}); err == nil {
			t.Errorf("module %q was accepted", name)
		}
	}
	if err := Base(io.Discard, nil, []Module{{Name: "a.ko"}, {Name: "a.ko"}}); err == nil {
		t.Error("a duplicate module was accepted")
	}
}

// failingWriter returns an error after n bytes.
type failingWriter struct{ n int }

var errFull = errors.New("full")

func (f *failingWriter) Write(p []byte) (int, error) {
	if f.n -= len(p); f.n < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestWriteErrorsAreReturned(t *testing.T) {
	size := len(initramfs(t))
	for n := 0; n < size; n += 61 {
		w := &failingWriter{n: n}
		err := Base(w, []byte("program"), modules())
		if err == nil {
			err = Machine(w, guest.Config{Version: guest.Version, Hostname: "box", HostKey: "secret"})
		}
		if !errors.Is(err, errFull) {
			t.Fatalf("disk full after %d bytes of %d: %v", n, size, err)
		}
	}
}
