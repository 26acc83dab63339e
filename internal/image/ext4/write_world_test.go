package ext4_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/image/ext4"
	"github.com/banger-vm/banger/internal/image/tree"
)

// wide has a row for each pitfall of the format.
func wide(t testing.TB) *world {
	w := newWorld(t)
	x := func(name, value string) tree.Xattr { return tree.Xattr{Name: name, Value: value} }
	w.dir("bin")
	w.file("bin/sh", "#!shell")
	w.file("empty", "")
	w.fileEntry(tree.Entry{Name: "ids", Mode: 0o6755, UID: 70_000, GID: 4_000_000_000}, "high ids")
	for name, sec := range map[string]int64{"m1": -1, "y1960": -315_619_200, "t31": 1 << 31, "t32": 1 << 32, "y2400": 13_569_465_600, "first": -1 << 31, "last": 1<<34 - 1<<31 - 1} {
		w.fileEntry(tree.Entry{Name: "time-" + name, Mode: 0o644, Mtime: tree.Time{Sec: sec, Nsec: 999_999_999}}, "")
	}
	for i, dev := range [][2]uint32{{1, 3}, {255, 255}, {256, 0}, {0, 256}, {4095, 1048575}, {8, 0xabcde}} {
		w.add(tree.Entry{Name: fmt.Sprintf("c%d", i), Type: tree.CharDevice, Mode: 0o620, Major: dev[0], Minor: dev[1]})
		w.add(tree.Entry{Name: fmt.Sprintf("b%d", i), Type: tree.BlockDevice, Mode: 0o660, Major: dev[0], Minor: dev[1]})
	}
	w.add(tree.Entry{Name: "fifo", Type: tree.Fifo, Mode: 0o600})
	for _, n := range []int{1, 59, 60, 61, 4095} {
		w.add(tree.Entry{Name: fmt.Sprintf("link%d", n), Type: tree.Symlink, Mode: 0o777, Linkname: strings.Repeat("t", n)})
	}
	w.add(tree.Entry{Name: "linklink", Type: tree.HardLink, Linkname: "link60"})
	w.add(tree.Entry{Name: "sh2", Type: tree.HardLink, Linkname: "bin/sh"})
	w.file(strings.Repeat("n", 255), "long name")
	w.file("\xff\xfe\n bytes", "name of bytes")
	w.file("implied/parent/of", "x")
	w.add(tree.Entry{Name: "implied", Type: tree.Directory, Mode: 0o1770, UID: 3, Mtime: tree.Time{Sec: 12345}})
	w.fileEntry(tree.Entry{Name: "order", Mode: 0o644, Xattrs: []tree.Xattr{
		x("security.capability", "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"),
		x("trusted.overlay.opaque", "y"), x("user.aaaa", strings.Repeat("1", 60)), x("user.b", strings.Repeat("2", 70)), x("user.ccc", ""), x("user.zz", "zz"),
	}}, "xattrs")
	acl := "\x02\x00\x00\x00" + "\x01\x00\x07\x00\xff\xff\xff\xff" + "\x02\x00\x04\x00\xe8\x03\x00\x00" + "\x04\x00\x05\x00\xff\xff\xff\xff" + "\x10\x00\x07\x00\xff\xff\xff\xff" + "\x20\x00\x05\x00\xff\xff\xff\xff"
	w.add(tree.Entry{Name: "acl", Type: tree.Directory, Mode: 0o775, Xattrs: []tree.Xattr{x("system.posix_acl_access", acl), x("system.posix_acl_default", acl)}})
	for _, n := range []int{60, 64, 65, 3000, 4000, 4096, 10_000, 65_536} {
		w.fileEntry(tree.Entry{Name: fmt.Sprintf("xattr%d", n), Mode: 0o644, Xattrs: []tree.Xattr{x("user.a", strings.Repeat("v", n)), x("user.b", strings.Repeat("w", n/2))}}, "x")
	}
	for _, n := range []int{1, 4095, 4096, 4097, 300_000} {
		w.file(fmt.Sprintf("size%d", n), strings.Repeat("s", n))
	}
	w.sparse("hole", 1<<40)
	w.sparse("sparse4", 1<<33, 0, 2, 4, 6)
	w.sparse("sparse5", 1<<33+5, 0, 2, 4, 6, 1<<20)
	var many []int64
	for i := range int64(1500) {
		many = append(many, 2*i)
	}
	w.sparse("sparse340", 1<<24, many[:340]...)
	w.sparse("sparse341", 1<<24, many[:341]...)
	w.sparse("sparse1361", 1<<24, many[:1361]...)
	for i := range 700 {
		w.file(fmt.Sprintf("crowd/%04d", i), "c")
	}
	w.layer()
	w.file("second/layer", strings.Repeat("2", 100_000))
	w.file("size4097", "replaced")
	return w
}

// compareTree compares the disk with the tree through the reader.
func compareTree(t testing.TB, w *world, disk string) {
	t.Helper()
	merged, fs := w.tree(), openDisk(t, disk)
	number := map[tree.ID]uint32{}
	for path, id := range merged.Walk() {
		n := uint32(ext4.RootInode)
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
		compareOne(t, w, fs, path, merged.Inode(id), n)
	}
}

func lookup(t testing.TB, fs *ext4.FS, path string) *ext4.Inode {
	t.Helper()
	n := uint32(ext4.RootInode)
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

func compareOne(t testing.TB, w *world, fs *ext4.FS, path string, want tree.Inode, n uint32) {
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
			if string(got) != string(w.spools[want.Body.Layer].Bytes()[at:at+r.Length]) {
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

// blockRuns rounds lengths up, since the last block of a file is whole on the
// disk.
func blockRuns(runs []tree.Run) []tree.Run {
	out := slices.Clone(runs)
	for i := range out {
		out[i].Length = (out[i].Length + tree.BlockSize - 1) &^ (tree.BlockSize - 1)
	}
	return out
}

func TestWriteReadsBack(t *testing.T) {
	w := wide(t)
	disk := w.write(options())
	compareTree(t, w, disk)
	lookupAll(t, openDisk(t, disk))
}

func TestB3BytesDependOnTheTreeAlone(t *testing.T) {
	for _, size := range []int64{0, ext4.MinSize, 300 << 20} {
		for direct := range 2 {
			o := options()
			o.Size, o.Direct = size, direct
			w := wide(t)
			l, err := ext4.Plan(w.tree(), o)
			if err != nil {
				t.Fatal(err)
			}
			want := digestOf(t, w.write(o))
			inPlace := filepath.Join(t.TempDir(), "disk")
			f, err := os.Create(inPlace)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ext4.NewDataFile(f).WriteAt(w.spools[direct].Bytes(), 0); err != nil {
				t.Fatal(err)
			}
			f.Close()
			w.writeTo(l, inPlace, w.readers(&direct))
			if got := digestOf(t, inPlace); got != want {
				t.Errorf("size %d, direct %d: in place %s, copied %s", size, direct, got, want)
			}
			files := w.readers(nil)
			for i, s := range w.spools {
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
			w.writeTo(l, inPlace, files) // over what is there
			if got := digestOf(t, inPlace); got != want {
				t.Errorf("size %d, direct %d: from files %s, from memory %s", size, direct, got, want)
			}
		}
	}
}

// TestKernelReadsAll mounts the disk and compares what the kernel says.
func TestKernelReadsAll(t *testing.T) {
	w := wide(t)
	o := options()
	o.Size = 512 << 20
	disk := w.write(o)
	mnt := mount(t, disk, "ro,noload")
	tree := w.tree()
	for path, id := range tree.Walk() {
		kernelInode(t, w, filepath.Join(mnt, path), tree.Inode(id))
	}
}

// mount mounts the disk until the test ends. Without root, or without loop
// devices, there is nothing to test with; where CI runs as root there must be.
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
		exec.Command("umount", mnt).Run() //nolint:errcheck // the test may have done it
	})
	return mnt
}

func kernelInode(t *testing.T, w *world, path string, want tree.Inode) {
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
		kernelContent(t, w, path, want)
	case tree.Directory, tree.Fifo, tree.HardLink:
	}
}

func kernelContent(t *testing.T, w *world, path string, want tree.Inode) {
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
		io.Copy(h, io.NewSectionReader(f, r.Offset, r.Length)) //nolint:errcheck // the sums differ then
		sum.Write(w.spools[want.Body.Layer].Bytes()[at : at+r.Length])
		at += (r.Length + tree.BlockSize - 1) &^ (tree.BlockSize - 1)
	}
	if string(h.Sum(nil)) != string(sum.Sum(nil)) {
		t.Errorf("%q: content differs", path)
	}
}
