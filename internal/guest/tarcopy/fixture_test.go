package tarcopy

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// requireRoot skips a test that creates devices or files of other users.
func requireRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("this test needs root")
	}
	t.Skip("this test needs root")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// describe returns a line with all attributes of each file below a folder.
func describe(t *testing.T, dir string) []string {
	t.Helper()
	first := map[uint64]string{}
	var lines []string
	must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		line := fmt.Sprintf("%q %o %d:%d %d.%09d", name, st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %q", b)
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " -> " + target
		case unix.S_IFCHR, unix.S_IFBLK:
			line += fmt.Sprintf(" device %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		if st.Nlink > 1 && !isDir(&st) {
			if first[st.Ino] == "" {
				first[st.Ino] = name
			}
			line += " same as " + first[st.Ino]
		}
		lines = append(lines, line+attributesOf(t, path))
		return nil
	}))
	return lines
}

func attributesOf(t *testing.T, path string) string {
	t.Helper()
	list := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, list)
	must(t, err)
	names := strings.FieldsFunc(string(list[:n]), func(r rune) bool { return r == 0 })
	slices.Sort(names)
	text := ""
	for _, name := range names {
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		must(t, err)
		text += fmt.Sprintf(" %s=%x", name, value[:n])
	}
	return text
}

// compare compares two descriptions.
func compare(t *testing.T, got, want []string) {
	t.Helper()
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("missing: %s", line)
		}
	}
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("unexpected: %s", line)
		}
	}
}

// capability is CAP_NET_BIND_SERVICE, version 2 of linux/capability.h.
const capability = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// sampleTree creates a folder with files of every type.
func sampleTree(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "world")
	must(t, os.MkdirAll(filepath.Join(dir, "deep", strings.Repeat("n", 255), "er"), 0o755))
	file := func(name, content string, mode uint32, uid, gid int) {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(content), 0o600))
		must(t, os.Chown(path, uid, gid))
		must(t, unix.Chmod(path, mode))
	}
	file("plain", "text", 0o644, 0, 0)
	file("empty", "", 0o400, 1, 2)
	file("setuid", "x", 0o6755, 1234, 5678)
	file("nobody may", "y", 0, 4294967294, 4294967294)
	file("line\nbreak\xff -", "z", 0o644, 3, 3)
	file("capable", "c", 0o755, 0, 0)
	file("deep/"+strings.Repeat("n", 255)+"/er/big", strings.Repeat("0123456789abcdef", 20000), 0o640, 7, 7)
	for name, target := range map[string]string{"link": "plain", "dangling": "/no/where", "loop": "loop", "up": "../../..", "to folder": "deep"} {
		must(t, os.Symlink(target, filepath.Join(dir, name)))
	}
	must(t, os.Lchown(filepath.Join(dir, "link"), 42, 43))
	must(t, unix.Mkfifo(filepath.Join(dir, "pipe"), 0o622))
	must(t, unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, unix.Mknod(filepath.Join(dir, "disk"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 70000))))
	for _, name := range []string{"plain", "link", "pipe"} {
		must(t, os.Link(filepath.Join(dir, name), filepath.Join(dir, "deep", name+" again")))
	}
	for name, value := range map[string]string{"capable\x00security.capability": capability, "plain\x00user.a": "1\x00\n=",
		"plain\x00trusted.t": "", "deep\x00user.of folder": "f", "link\x00trusted.of link": "l", "null\x00trusted.of device": "d"} {
		path, attr, _ := strings.Cut(name, "\x00")
		must(t, unix.Lsetxattr(filepath.Join(dir, path), attr, []byte(value), 0))
	}
	must(t, os.Mkdir(filepath.Join(dir, "sticky"), 0o755))
	must(t, unix.Chmod(filepath.Join(dir, "sticky"), 0o3777))
	for i, name := range []string{"sticky", "link", "pipe", "null", "plain", "deep/" + strings.Repeat("n", 255), "deep"} {
		ts := unix.Timespec{Sec: int64(i-2) * 1e9, Nsec: 123456789}
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(dir, name), []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
	}
	must(t, unix.Chmod(filepath.Join(dir, "deep"), 0o555))
	must(t, unix.Chmod(dir, 0o711))
	return dir
}

// packed returns the stream of a path.
func packed(t *testing.T, path string, opts PackOptions) []byte {
	t.Helper()
	var b bytes.Buffer
	must(t, Pack(t.Context(), &b, path, opts))
	return b.Bytes()
}

// namesOf returns the names in a stream, with the targets of links.
func namesOf(t *testing.T, stream []byte) []string {
	t.Helper()
	var names []string
	for r := tar.NewReader(bytes.NewReader(stream)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		must(t, err)
		name := h.Name
		switch h.Typeflag {
		case tar.TypeLink:
			name += " = " + h.Linkname
		case tar.TypeSymlink:
			name += " -> " + h.Linkname
		}
		names = append(names, name)
	}
}

// An entry is an entry of a stream that a test writes.
type entry struct {
	name    string
	kind    byte // 0 is a regular file
	target  string
	body    string
	mode    int64 // 0 is 0644
	uid     int
	records map[string]string
}

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{
			Format: tar.FormatPAX, Name: e.name, Typeflag: e.kind, Linkname: e.target, Size: int64(len(e.body)),
			Mode: e.mode, Uid: e.uid, Gid: e.uid, PAXRecords: e.records,
		}
		if e.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		if e.mode == 0 {
			h.Mode = 0o644
		}
		if e.kind == tar.TypeChar || e.kind == tar.TypeBlock {
			h.Devmajor, h.Devminor = 1, 3
		}
		if err := errors.Join(w.WriteHeader(h), func() error { _, err := io.WriteString(w, e.body); return err }()); err != nil {
			t.Fatalf("%q: %v", e.name, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func extract(ctx context.Context, stream []byte, dir string, opts ExtractOptions) (notes []string, err error) {
	opts.Note = func(text string) { notes = append(notes, text) }
	_, err = Extract(ctx, bytes.NewReader(stream), dir, opts)
	return notes, err
}

// is reports whether err matches want: nil, an errno, or a part of the error's
// text.
func is(err error, want any) bool {
	switch want := want.(type) {
	case nil:
		return err == nil
	case syscall.Errno:
		return errors.Is(err, want)
	case string:
		return err != nil && strings.Contains(err.Error(), want)
	}
	return false
}

func octal(n uint32) string   { return strconv.FormatUint(uint64(n), 8) }
func decimal(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
