package write_test

import (
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/image/ext4/ext4test"
	"github.com/banger-vm/banger/internal/image/ext4/read"
	"github.com/banger-vm/banger/internal/image/ext4/write"
	"github.com/banger-vm/banger/internal/image/tree"
)

// compareTree compares the disk, read by package read, with the tree.
func compareTree(t testing.TB, img *ext4test.Image, disk string) {
	t.Helper()
	merged, fs := img.Tree(), ext4test.Open(t, disk)
	number := map[tree.ID]uint32{}
	for path, id := range merged.Walk() {
		n := uint32(read.RootInode)
		if path != "." {
			dir, base := filepath.Split(path)
			in := lookup(t, fs, strings.TrimSuffix(dir, "/"))
			var err error
			if n, err = fs.Lookup(in, base); err != nil {
				t.Fatalf("%q: %v", path, err)
			}
		}
		if old := number[id]; old != 0 && old != n {
			t.Errorf("%q: inode %d, the other name has %d", path, n, old)
		}
		number[id] = n
		compareOne(t, img, fs, path, merged.Inode(id), n)
	}
}

func lookup(t testing.TB, fs *read.FS, path string) *read.Inode {
	t.Helper()
	n := uint32(read.RootInode)
	for _, base := range strings.FieldsFunc(path, func(r rune) bool { return r == '/' }) {
		in, err := fs.Inode(n)
		if err == nil {
			n, err = fs.Lookup(in, base)
		}
		if err != nil {
			t.Fatalf("%q: %v", path, err)
		}
	}
	in, err := fs.Inode(n)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func compareOne(t testing.TB, img *ext4test.Image, fs *read.FS, path string, want tree.Inode, n uint32) {
	t.Helper()
	in, err := fs.Inode(n)
	if err != nil {
		t.Fatalf("%q: %v", path, err)
	}
	if in.Type != want.Type || in.Mode&0o7777 != want.Mode || in.UID != want.UID || in.GID != want.GID || in.Mtime != want.Mtime {
		t.Errorf("%q: got %v %o %d:%d %v, want %v %o %d:%d %v", path, in.Type, in.Mode, in.UID, in.GID, in.Mtime,
			want.Type, want.Mode, want.UID, want.GID, want.Mtime)
	}
	xattrs, err := fs.Xattrs(in)
	if err != nil || len(xattrs)+len(want.Xattrs) > 0 && !reflect.DeepEqual(xattrs, want.Xattrs) {
		t.Errorf("%q: attributes differ (%v)", path, err)
	}
	switch want.Type {
	case tree.Regular:
		data, err := fs.Data(in)
		if err != nil || in.Size != want.Size || !slices.Equal(blockRuns(data.Runs()), blockRuns(bodyRunsOf(want))) {
			t.Errorf("%q: %d bytes in %v, want %d in %v (%v)", path, in.Size, data.Runs(), want.Size, bodyRunsOf(want), err)
			return
		}
		at := want.Body.Offset
		for _, r := range bodyRunsOf(want) {
			got := make([]byte, r.Length)
			if _, err := data.ReadAt(got, r.Offset); err != nil && !errors.Is(err, io.EOF) {
				t.Errorf("%q: %v", path, err)
			}
			if string(got) != string(img.Spools[want.Body.Layer].Bytes()[at:at+r.Length]) {
				t.Errorf("%q: content at %d differs", path, r.Offset)
			}
			at += (r.Length + tree.BlockSize - 1) &^ (tree.BlockSize - 1)
		}
	case tree.Symlink:
		if target, err := fs.Readlink(in); err != nil || target != want.Target {
			t.Errorf("%q: target of %d bytes, want %d (%v)", path, len(target), len(want.Target), err)
		}
	case tree.CharDevice, tree.BlockDevice:
		if in.Major != want.Major || in.Minor != want.Minor {
			t.Errorf("%q: device %d:%d, want %d:%d", path, in.Major, in.Minor, want.Major, want.Minor)
		}
	case tree.Directory, tree.Fifo, tree.HardLink:
	}
}

func bodyRunsOf(in tree.Inode) []tree.Run {
	if in.Body.Runs == nil && in.Size > 0 {
		return []tree.Run{{Length: in.Size}}
	}
	return in.Body.Runs
}

// blockRuns rounds the lengths of runs up to whole blocks, because the last block of
// a file is complete on the disk.
func blockRuns(runs []tree.Run) []tree.Run {
	out := slices.Clone(runs)
	for i := range out {
		out[i].Length = (out[i].Length + tree.BlockSize - 1) &^ (tree.BlockSize - 1)
	}
	return out
}

func TestWriteReadsBack(t *testing.T) {
	img := ext4test.EdgeCases(t)
	disk := img.Write(ext4test.Options())
	compareTree(t, img, disk)
	ext4test.LookupAll(t, ext4test.Open(t, disk))
}

func TestB3BytesDependOnlyOnTheTree(t *testing.T) {
	for _, size := range []int64{0, write.MinSize, 300 << 20} {
		for direct := range 2 {
			o := ext4test.Options()
			o.Size, o.Direct = size, direct
			img := ext4test.EdgeCases(t)
			l, err := write.Plan(img.Tree(), o)
			if err != nil {
				t.Fatal(err)
			}
			want := ext4test.Digest(t, img.Write(o))
			inPlace := filepath.Join(t.TempDir(), "disk")
			f, err := os.Create(inPlace)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := write.NewDataFile(f).WriteAt(img.Spools[direct].Bytes(), 0); err != nil {
				t.Fatal(err)
			}
			f.Close()
			img.WriteTo(l, inPlace, img.Readers(&direct))
			if got := ext4test.Digest(t, inPlace); got != want {
				t.Errorf("size %d, direct %d: in place %s, copied %s", size, direct, got, want)
			}
			files := img.Readers(nil)
			for i, s := range img.Spools {
				path := filepath.Join(t.TempDir(), "spool")
				if err := os.WriteFile(path, s.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
				spool, err := os.Open(path)
				if err != nil {
					t.Fatal(err)
				}
				defer spool.Close()
				files[i] = spool
			}
			img.WriteTo(l, inPlace, files) // over the old content
			if got := ext4test.Digest(t, inPlace); got != want {
				t.Errorf("size %d, direct %d: from files %s, from memory %s", size, direct, got, want)
			}
		}
	}
}

// TestKernelReadsBack mounts the disk and compares it with the tree.
func TestKernelReadsBack(t *testing.T) {
	img := ext4test.EdgeCases(t)
	o := ext4test.Options()
	o.Size = 512 << 20
	disk := img.Write(o)
	mnt := mount(t, disk, "ro,noload")
	tree := img.Tree()
	for path, id := range tree.Walk() {
		kernelInode(t, img, filepath.Join(mnt, path), tree.Inode(id))
	}
}

// mount mounts the disk until the test ends. It skips the test if the user is not
// root or if the mount fails. If root runs it in CI, the mount must succeed.
func mount(t *testing.T, disk, options string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting takes root")
	}
	mnt := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "mount", "-o", "loop,"+options, disk, mnt).CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("mount: %v: %s", err, out)
		}
		t.Skipf("mount: %v: %s", err, out)
	}
	t.Cleanup(func() {
		// It fails if the test has unmounted the disk already.
		if err := exec.Command("umount", mnt).Run(); err != nil {
			t.Logf("umount: %v", err)
		}
	})
	return mnt
}

func kernelInode(t *testing.T, img *ext4test.Image, path string, want tree.Inode) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Error(err)
		return
	}
	if uint16(st.Mode&0o7777) != want.Mode || st.Uid != want.UID || st.Gid != want.GID ||
		st.Mtim.Sec != want.Mtime.Sec || uint32(st.Mtim.Nsec) != want.Mtime.Nsec {
		t.Errorf("%q: %o %d:%d %v", path, st.Mode, st.Uid, st.Gid, st.Mtim)
	}
	if want.Type != tree.Directory && int(st.Nlink) != want.Links {
		t.Errorf("%q: %d links, want %d", path, st.Nlink, want.Links)
	}
	list := make([]byte, 1<<16)
	n, err := unix.Llistxattr(path, list)
	if err != nil || strings.Count(string(list[:max(n, 0)]), "\x00") != len(want.Xattrs) {
		t.Errorf("%q: attributes %q (%v)", path, list[:max(n, 0)], err)
	}
	for _, x := range want.Xattrs {
		n, err := unix.Lgetxattr(path, x.Name, list)
		if err != nil || string(list[:n]) != x.Value {
			t.Errorf("%q: %s is %d bytes, want %d (%v)", path, x.Name, n, len(x.Value), err)
		}
	}
	switch want.Type {
	case tree.CharDevice, tree.BlockDevice:
		if st.Rdev != unix.Mkdev(want.Major, want.Minor) {
			t.Errorf("%q: device %#x", path, st.Rdev)
		}
	case tree.Symlink:
		if target, err := os.Readlink(path); err != nil || target != want.Target {
			t.Errorf("%q: target %q (%v)", path, target, err)
		}
	case tree.Regular:
		kernelContent(t, img, path, want)
	case tree.Directory, tree.Fifo, tree.HardLink:
	}
}

func kernelContent(t *testing.T, img *ext4test.Image, path string, want tree.Inode) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	h, sum := sha256.New(), sha256.New()
	end, at := int64(0), want.Body.Offset
	for _, r := range bodyRunsOf(want) {
		start, err := f.Seek(end, unix.SEEK_DATA)
		if err != nil || start != r.Offset {
			t.Errorf("%q: data at %d, want %d (%v)", path, start, r.Offset, err)
			return
		}
		if end, err = f.Seek(start, unix.SEEK_HOLE); err != nil || end < r.Offset+r.Length {
			t.Errorf("%q: hole at %d, want %d (%v)", path, end, r.Offset+r.Length, err)
		}
		if _, err := io.Copy(h, io.NewSectionReader(f, r.Offset, r.Length)); err != nil {
			t.Errorf("%q: %v", path, err)
		}
		sum.Write(img.Spools[want.Body.Layer].Bytes()[at : at+r.Length])
		at += (r.Length + tree.BlockSize - 1) &^ (tree.BlockSize - 1)
	}
	if string(h.Sum(nil)) != string(sum.Sum(nil)) {
		t.Errorf("%q: content differs", path)
	}
}
