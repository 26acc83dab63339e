package unpack

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/image/ext4/read"
	"github.com/banger-vm/banger/internal/image/ext4/write"
	"github.com/banger-vm/banger/internal/image/tree"
)

// disk makes a disk of entries, in which every regular file has the content body.
func disk(t *testing.T, entries []tree.Entry, body string) *read.FS {
	t.Helper()
	m := tree.NewMerger(tree.Options{})
	if err := m.NextLayer(); err != nil {
		t.Fatal(err)
	}
	var spool strings.Builder
	for _, e := range entries {
		if e.Type == tree.Regular {
			e.Size, e.Body.Offset = int64(len(body)), int64(spool.Len())
			spool.WriteString(body + strings.Repeat("\x00", tree.BlockSize-len(body)))
		}
		if err := m.Add(&e); err != nil {
			t.Fatal(err)
		}
	}
	layout, err := write.Plan(m.Tree(), write.Options{Direct: -1})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := layout.Write(t.Context(), f, []io.ReaderAt{strings.NewReader(spool.String())}, func(int64, int64) {}); err != nil {
		t.Fatal(err)
	}
	fs, err := read.Open(f, layout.Size())
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

func entries() []tree.Entry {
	old := tree.Time{Sec: 1_000_000_000, Nsec: 123_456_789}
	return []tree.Entry{
		{Name: "closed", Type: tree.Directory, Mode: 0, Mtime: old},
		{Name: "closed/file", Type: tree.Regular, Mode: 0o640, Mtime: old, Xattrs: []tree.Xattr{{Name: "user.a", Value: "b"}}},
		{Name: "again", Type: tree.HardLink, Linkname: "closed/file"},
		{Name: "out", Type: tree.Symlink, Linkname: "/etc", Mtime: old},
		{Name: "pipe", Type: tree.Fifo, Mode: 0o600, Mtime: old},
		{Name: "setuid", Type: tree.Regular, Mode: 0o4755, UID: 12345, GID: 54321, Mtime: old},
		{Name: "null", Type: tree.CharDevice, Mode: 0o666, Major: 1, Minor: 3, Mtime: old},
	}
}

func TestIntoWritesTheTree(t *testing.T) {
	dir := t.TempDir()
	warnings, err := Into(t.Context(), disk(t, entries(), "content"), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Chmod(filepath.Join(dir, "closed"), 0o700); err != nil {
			t.Error(err)
		}
	})
	stat := func(name string) (st unix.Stat_t) {
		if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil {
			t.Error(err)
		}
		return st
	}
	if target, err := os.Readlink(filepath.Join(dir, "out")); err != nil || target != "/etc" {
		t.Errorf("symlink to %q, %v", target, err)
	}
	if st := stat("again"); st.Nlink != 2 || st.Mode != unix.S_IFREG|0o640 || st.Mtim.Sec != 1_000_000_000 || st.Mtim.Nsec != 123_456_789 {
		t.Errorf("file is %+v", st)
	}
	if st := stat("closed"); st.Mode != unix.S_IFDIR || st.Mtim.Nsec != 123_456_789 {
		t.Errorf("closed directory is %+v", st)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "again")); err != nil || string(data) != "content" {
		t.Errorf("content is %q, %v", data, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, lostFound)); err == nil {
		t.Error("an empty lost+found was unpacked")
	}
	st := stat("setuid")
	if os.Getuid() == 0 {
		if st.Mode != unix.S_IFREG|0o4755 || st.Uid != 12345 || st.Gid != 54321 || stat("null").Rdev != unix.Mkdev(1, 3) || len(warnings) != 0 {
			t.Errorf("setuid file is %+v, warnings %q", st, warnings)
		}
		return
	}
	if st.Mode != unix.S_IFREG|0o755 || !strings.Contains(fmt.Sprint(warnings), "devices: 1 left out") {
		t.Errorf("setuid file is %+v, warnings %q", st, warnings)
	}
}

func TestIntoFollowsNoSymlinkOfTheFolder(t *testing.T) {
	dir, probe := t.TempDir(), t.TempDir()
	if err := os.Symlink(probe, filepath.Join(dir, "closed")); err != nil {
		t.Fatal(err)
	}
	if _, err := Into(t.Context(), disk(t, entries(), "x"), dir); err == nil {
		t.Error("no error at a symlink in the folder")
	}
	if left, err := os.ReadDir(probe); err != nil || len(left) != 0 {
		t.Errorf("probe holds %v, %v", left, err)
	}
}

// TestIntoCountsWhatFoldersLose checks the warnings about a folder. Its metadata
// is set last, after all entries.
func TestIntoCountsWhatFoldersLose(t *testing.T) {
	odd := []tree.Xattr{{Name: "security.capability", Value: "no capability"}} // setxattr(2) gives EINVAL, or EPERM to a plain user
	list := []tree.Entry{{Name: "folder", Type: tree.Directory, Mode: 0o755, UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), Xattrs: odd}}
	warnings, err := Into(t.Context(), disk(t, list, "x"), t.TempDir())
	if err != nil || !strings.Contains(fmt.Sprint(warnings), `attributes security.capability: 1 left out: "folder"`) {
		t.Errorf("warnings %q, %v", warnings, err)
	}
}
