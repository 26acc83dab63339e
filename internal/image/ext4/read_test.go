package ext4_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/image/ext4"
	"github.com/banger-vm/banger/internal/image/tree"
)

// stockDisk is a disk that mke2fs made of a folder.
func stockDisk(t testing.TB, folder, size string, flags ...string) string {
	t.Helper()
	disk := filepath.Join(t.TempDir(), "disk.ext4")
	e2tool(t, 0, "mkfs.ext4", append(append([]string{"-q", "-F", "-d", folder}, flags...), disk, size)...)
	return disk
}

// e2tool runs a program of e2fsprogs, which a plain user has not in $PATH. It
// may exit with a code up to most.
func e2tool(t testing.TB, most int, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err == nil {
			break
		}
		path, err = exec.LookPath(filepath.Join(dir, name))
	}
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() <= most {
		err = nil
	}
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func openDisk(t testing.TB, disk string) *ext4.FS {
	t.Helper()
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	fs, err := ext4.Open(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

// crowdName is long, so that a few hundred of them make a hash tree of two
// levels in blocks of 1 KiB.
func crowdName(i int) string {
	return fmt.Sprintf("one of a crowd \xff %06d%s", i, strings.Repeat(" and so on", 18))
}

// sourceFolder has one of everything that a plain user can make.
func sourceFolder(t testing.TB, crowd int) string {
	t.Helper()
	dir := t.TempDir()
	try := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	try(os.MkdirAll(at("deep/er/still"), 0o700))
	try(os.MkdirAll(at("crowd"), 0o755))
	for i := range crowd {
		try(os.WriteFile(at("crowd/"+crowdName(i)), nil, 0o600))
	}
	try(os.WriteFile(at("empty"), nil, 0o4755))
	try(os.WriteFile(at("small"), []byte("content\n"), 0o644))
	try(os.WriteFile(at("large"), bytes.Repeat([]byte("0123456789abcde\n"), 1<<16), 0o644))
	sparse, err := os.Create(at("sparse"))
	try(err)
	for i := range int64(400) { // more extents than an inode and one block have room for
		_, err := sparse.WriteAt([]byte("data"), i*3*4096)
		try(err)
	}
	try(sparse.Truncate(5 << 20))
	try(sparse.Close())
	try(os.Symlink("small", at("short")))
	try(os.Symlink(strings.Repeat("long/", 20), at("long")))
	try(os.Symlink(strings.Repeat("x", 59), at("fifty-nine")))
	try(os.Symlink(strings.Repeat("x", 60), at("sixty")))
	try(unix.Mkfifo(at("fifo"), 0o620))
	try(os.Link(at("small"), at("deep/second name")))
	try(os.Chtimes(at("small"), time.Unix(-5, 0), time.Unix(1<<31-7, 0)))
	for i := range 6 {
		// Not every file system of a host keeps attributes.
		err := unix.Setxattr(at("large"), fmt.Sprintf("user.number%d", i), bytes.Repeat([]byte{byte(i)}, 40*i), 0)
		if err != nil && !errors.Is(err, unix.ENOTSUP) {
			try(err)
		}
	}
	return dir
}

// TestReadStockDisk reads disks of mke2fs in several geometries, and compares
// them with the folder that they were made of.
func TestReadStockDisk(t *testing.T) {
	folder := sourceFolder(t, 600)
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
			disk := stockDisk(t, folder, row.size, row.flags...)
			compareFolder(t, openDisk(t, disk), folder)
			expectSound(t, openDisk(t, disk))
			e2tool(t, 1, "e2fsck", "-fyD", disk) // gives directories a hash tree
			fs := openDisk(t, disk)
			compareFolder(t, fs, folder)
			lookupAll(t, fs)
			expectSound(t, fs)
		})
	}
}

// compareFolder wants every name of folder on the disk, and nothing else but
// lost+found.
func compareFolder(t *testing.T, fs *ext4.FS, folder string) {
	t.Helper()
	seen := map[string]bool{}
	err := fs.Walk(func(path string, in *ext4.Inode) error {
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

func compareInode(t *testing.T, fs *ext4.FS, in *ext4.Inode, path string) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Error(err)
		return
	}
	root := in.Number == ext4.RootInode // whose mode and owner mke2fs chooses
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

func compareContent(t *testing.T, fs *ext4.FS, in *ext4.Inode, path string) {
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

func compareXattrs(t *testing.T, fs *ext4.FS, in *ext4.Inode, path string) {
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

// expectSound wants nothing wrong with a disk.
func expectSound(t *testing.T, fs *ext4.FS) {
	t.Helper()
	problems, err := fs.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Error(p)
	}
}

// lookupAll finds every name by the hash tree, and others not.
func lookupAll(t *testing.T, fs *ext4.FS) {
	t.Helper()
	names, trees := 0, 0
	err := fs.Walk(func(_ string, in *ext4.Inode) error {
		if in.Type != tree.Directory {
			return nil
		}
		if in.Flags&0x1000 != 0 {
			trees++
		}
		if n, err := fs.Lookup(in, "no such name"); n != 0 || err != nil {
			t.Errorf("directory %d: a name that is not there is inode %d (%v)", in.Number, n, err)
		}
		return fs.ReadDir(in, func(e ext4.DirEntry) error {
			names++
			if n, err := fs.Lookup(in, e.Name); n != e.Inode || err != nil {
				t.Errorf("directory %d: %q is inode %d (%v), want %d", in.Number, e.Name, n, err, e.Inode)
			}
			return nil
		})
	})
	if err != nil || names == 0 || trees == 0 {
		t.Errorf("%d names and %d hash trees looked at (%v)", names, trees, err)
	}
}
