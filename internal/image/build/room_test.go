package build

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/image/pull"
	"github.com/banger-vm/banger/internal/image/tree"
)

// manyFolders writes a tar of n directories, each of which takes a block of a
// disk, and returns its source.
func manyFolders(t *testing.T, n int) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := range n {
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprint(i), Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "many.tar")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return "tar:" + path
}

// TestB1LimitOfTheDisk checks that both builders refuse a disk that is larger than
// the limit, and leave nothing.
func TestB1LimitOfTheDisk(t *testing.T) {
	source := manyFolders(t, 100)
	for _, b := range []Builder{Native, E2fsprogs} {
		dir := t.TempDir()
		o := Options{Builder: b, MaxDisk: 64<<20 - 1, Pull: pull.Options{CacheDir: t.TempDir()}}
		_, err := Convert(t.Context(), source, filepath.Join(dir, "disk"), o)
		if limit, ok := errors.AsType[*tree.LimitError](err); !ok || limit.Option != "--max-disk" || !strings.Contains(err.Error(), "disk of 67108864 bytes") {
			t.Errorf("%s: %v", b, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("%s left %v, %v", b, left, err)
		}
		o.MaxDisk++
		if _, err := Convert(t.Context(), source, filepath.Join(dir, "disk"), o); err != nil {
			t.Errorf("%s, a disk of the limit's size: %v", b, err)
		}
	}
}

// TestB1RoomForMetadata checks that a disk whose directories alone exceed the free
// space is refused before a builder writes it.
func TestB1RoomForMetadata(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a small file system needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"); err != nil {
		t.Skip("mount: ", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	source := manyFolders(t, 8000) // 31 MiB of directories
	for _, b := range []Builder{Native, E2fsprogs} {
		o := Options{Builder: b, Pull: pull.Options{CacheDir: t.TempDir()}}
		_, err := Convert(t.Context(), source, filepath.Join(dir, "disk"), o)
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "MiB are needed and ") {
			t.Errorf("%s: %v", b, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("%s left %v, %v", b, left, err)
		}
	}
}

// TestRoomForFiles checks that files are compared with the free inodes.
func TestRoomForFiles(t *testing.T) {
	dir := t.TempDir()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	if st.Files == 0 {
		t.Skip("the file system has no fixed number of inodes")
	}
	if err := checkSpace(dir, 0, 1<<60); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "inodes free") {
		t.Errorf("2^60 inodes were free: %v", err)
	}
}
