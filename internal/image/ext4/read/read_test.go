package read_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/image/ext4/ext4test"
	"github.com/banger-vm/banger/internal/image/ext4/read"
	"github.com/banger-vm/banger/internal/image/tree"
)

// TestReadStockDisk reads disks that mke2fs makes of a folder, in several
// geometries, and compares them with the folder.
func TestReadStockDisk(t *testing.T) {
	folder := ext4test.SourceFolder(t, 600)
	for _, row := range []struct {
		name  string
		size  string
		flags []string
	}{
		{"stock", "600M", nil},
		{"blocks of 1 KiB", "64M", []string{"-b", "1024"}},
		{"blocks of 2 KiB", "64M", []string{"-b", "2048"}},
		{"no checksums", "64M", []string{"-b", "4096", "-O", "^metadata_csum"}},
		{"old checksums", "64M", []string{"-b", "4096", "-O", "^metadata_csum,uninit_bg"}},
		{"not 64bit", "64M", []string{"-O", "^64bit"}},
		{"small inodes", "64M", []string{"-I", "128"}},
		{"checksum seed", "64M", []string{"-O", "metadata_csum_seed", "-U", "random"}},
		{"no journal, no flex_bg", "64M", []string{"-O", "^has_journal,^flex_bg,^resize_inode"}},
		{"ea_inode and more", "64M", []string{"-O", "ea_inode,large_dir,sparse_super2"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			disk := ext4test.StockDisk(t, folder, row.size, row.flags...)
			compareFolder(t, ext4test.Open(t, disk), folder)
			ext4test.CheckMetadata(t, ext4test.Open(t, disk))
			ext4test.E2Tool(t, 1, "e2fsck", "-fyD", disk) // gives the directories hash trees
			fs := ext4test.Open(t, disk)
			compareFolder(t, fs, folder)
			ext4test.LookupAll(t, fs)
			ext4test.CheckMetadata(t, fs)
		})
	}
}

// compareFolder reports an error if the disk does not have the names of the
// folder, with the same inodes. Only lost+found may be there in addition.
func compareFolder(t *testing.T, fs *read.FS, folder string) {
	t.Helper()
	seen := map[string]bool{}
	err := fs.Walk(func(path string, in *read.Inode) error {
		if path != "lost+found" {
			seen[path] = true
			compareInode(t, fs, in, filepath.Join(folder, path))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(folder, func(path string, _ os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(folder, path); !seen[rel] {
			t.Errorf("%s is missing", rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func compareInode(t *testing.T, fs *read.FS, in *read.Inode, path string) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Error(err)
		return
	}
	root := in.Number == read.RootInode // mke2fs chooses its mode and owner
	if want := uint16(st.Mode & 0o7777); in.Mode != want && !root {
		t.Errorf("%s: mode %o, want %o", path, in.Mode, want)
	}
	if (in.UID != st.Uid || in.GID != st.Gid) && !root {
		t.Errorf("%s: owner %d:%d, want %d:%d", path, in.UID, in.GID, st.Uid, st.Gid)
	}
	if in.Mtime.Sec != st.Mtim.Sec && !root && in.Crtime != (tree.Time{}) && st.Mtim.Sec < 1<<31 {
		t.Errorf("%s: mtime %d, want %d", path, in.Mtime.Sec, st.Mtim.Sec)
	}
	if in.Type != tree.Directory && uint64(in.Links) != uint64(st.Nlink) {
		t.Errorf("%s: %d links, want %d", path, in.Links, st.Nlink)
	}
	switch in.Type {
	case tree.Symlink:
		want, err := os.Readlink(path)
		got, gotErr := fs.Readlink(in)
		if err != nil || gotErr != nil || got != want {
			t.Errorf("%s: target %q (%v), want %q (%v)", path, got, gotErr, want, err)
		}
	case tree.Regular:
		compareContent(t, fs, in, path)
	case tree.Fifo:
		if st.Mode&unix.S_IFMT != unix.S_IFIFO {
			t.Errorf("%s is a fifo", path)
		}
	}
	compareXattrs(t, fs, in, path)
}

func compareContent(t *testing.T, fs *read.FS, in *read.Inode, path string) {
	t.Helper()
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := fs.Data(in)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, f.Size())
	if n, err := f.ReadAt(got, 0); n < len(got) || !bytes.Equal(got, want) {
		t.Errorf("%s: content differs (%v)", path, err)
	}
	for _, r := range f.Runs() {
		clear(got[r.Offset : r.Offset+r.Length])
	}
	if len(bytes.Trim(got, "\x00")) > 0 {
		t.Errorf("%s: data outside of the runs", path)
	}
}

func compareXattrs(t *testing.T, fs *read.FS, in *read.Inode, path string) {
	t.Helper()
	got, err := fs.Xattrs(in)
	if err != nil {
		t.Error(err)
	}
	for _, x := range got {
		value := make([]byte, 1<<16)
		n, err := unix.Lgetxattr(path, x.Name, value)
		if err != nil || string(value[:n]) != x.Value {
			t.Errorf("%s: %s is %q, want %q (%v)", path, x.Name, x.Value, value[:n], err)
		}
	}
	if n, err := unix.Llistxattr(path, nil); err == nil && n > 0 && len(got) == 0 {
		t.Errorf("%s: no extended attributes", path)
	}
}
