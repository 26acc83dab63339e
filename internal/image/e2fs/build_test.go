package e2fs_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/image/tree"
)

// everything returns a tree with every kind of inode and field.
func everything(t *testing.T) *treeWriter {
	w := newTreeWriter(t)
	w.add(tree.Entry{Name: ".", Type: tree.Directory, Mode: 0o711, UID: 3, GID: 4, Mtime: tree.Time{Sec: 9, Nsec: 8}})
	w.dir("usr")
	w.dir("usr/bin")
	w.add(w.body(tree.Entry{
		Name: "usr/bin/sudo", Mode: 0o4755, Mtime: tree.Time{Sec: 1600000000, Nsec: 999999999},
		Xattrs: []tree.Xattr{{Name: "security.capability", Value: "\x01\x00\x00\x02\x00 \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}},
	}, "#!/bin/false\n"))
	w.add(w.body(tree.Entry{Name: "usr/bin/wall", Mode: 0o2755, GID: 5}, "x"))
	w.add(w.body(tree.Entry{Name: "gshadow", UID: 1<<32 - 2, GID: 70000}, "secret")) // mode 0000
	w.add(tree.Entry{Name: "locked", Type: tree.Directory, UID: 65536, GID: 65535})
	w.file("locked/inside", "in a directory of mode 0")
	w.add(tree.Entry{Name: "tmp", Type: tree.Directory, Mode: 0o1777, Mtime: tree.Time{Sec: -1, Nsec: 5}})
	w.file("empty", "")
	w.file("blocks", strings.Repeat("0123456789abcdef", 4096))
	w.hole("holes", 20<<20, tree.Run{Offset: 0, Length: 4096}, tree.Run{Offset: 1 << 20, Length: 8192}, tree.Run{Offset: 20<<20 - 4096, Length: 4096})
	w.hole("only-hole", 5<<20+17)
	w.add(tree.Entry{Name: "link", Type: tree.Symlink, Mode: 0o777, Linkname: "/nowhere/on/this host", UID: 12, GID: 13, Mtime: tree.Time{Sec: 77, Nsec: 78}})
	w.add(tree.Entry{Name: "longlink", Type: tree.Symlink, Mode: 0o777, Linkname: strings.Repeat("/long", 819)})
	w.add(tree.Entry{Name: "link60", Type: tree.Symlink, Mode: 0o777, Linkname: strings.Repeat("x", 60)})
	for _, l := range [][2]string{
		{"usr/bin/sudoedit", "usr/bin/sudo"}, {"a-sudo", "usr/bin/sudo"}, {"usr/link2", "link"}, {"link3", "link"},
		{"longlink2", "longlink"}, {"dev/zero", "dev/null"}, {"null", "dev/null"}, {"pipe2", "pipe"},
	} {
		if l[0] == "dev/zero" {
			w.dev("dev/null", tree.CharDevice, 1, 3)
			w.add(tree.Entry{Name: "pipe", Type: tree.Fifo, Mode: 0o640, UID: 6})
		}
		w.add(tree.Entry{Name: l[0], Type: tree.HardLink, Linkname: l[1]})
	}
	w.dev("dev/sda", tree.BlockDevice, 8, 0)
	w.dev("dev/b255", tree.BlockDevice, 255, 255)
	w.dev("dev/c256", tree.CharDevice, 256, 1)
	w.dev("dev/wide", tree.CharDevice, 4095, 1<<20-1)
	w.dev("dev/<2>", tree.BlockDevice, 7, 256)
	for _, sec := range []int64{-1 << 31, -315619200, -1, 0, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 13569465600, 3<<32 + 1<<31 - 1} {
		w.add(tree.Entry{Name: fmt.Sprint("times/", sec), Type: tree.Regular, Mtime: tree.Time{Sec: sec, Nsec: 987654321}})
	}
	w.xattrs()
	return w
}

func (w *treeWriter) dev(name string, typ tree.Type, major, minor uint32) {
	w.add(tree.Entry{Name: name, Type: typ, Mode: 0o620, UID: 70000, GID: 5, Major: major, Minor: minor})
}

// hole adds a file with holes. Each run is filled with a letter of its own.
func (w *treeWriter) hole(name string, size int64, runs ...tree.Run) {
	e := tree.Entry{Name: name, Type: tree.Regular, Mode: 0o600, Size: size}
	e.Body.Offset = int64(w.spool.Len())
	e.Body.Runs = append([]tree.Run{}, runs...)
	for i, r := range runs {
		w.put(strings.Repeat(string(rune('a'+i)), int(r.Length)))
	}
	w.add(e)
}

func (w *treeWriter) xattrs() {
	var every strings.Builder
	for i := range 256 {
		every.WriteByte(byte(i))
	}
	w.add(tree.Entry{Name: "x", Type: tree.Directory, Mode: 0o755})
	w.add(tree.Entry{Name: "x/many", Type: tree.Regular, Mode: 0o644, Xattrs: []tree.Xattr{
		{Name: "security.capability", Value: "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"},
		{Name: "security.ima", Value: every.String()},
		{Name: "trusted.overlay.opaque", Value: "y"},
		{Name: "user.a", Value: ""}, {Name: "user.aa", Value: "\x00"}, {Name: "user.b", Value: "\n\"\\"},
		{Name: "user.long", Value: strings.Repeat("v", 2000)},
		{Name: "user.name with space", Value: "s"},
	}})
	w.add(tree.Entry{Name: "x/acl", Type: tree.Directory, Mode: 0o775, Xattrs: []tree.Xattr{
		{Name: "system.posix_acl_access", Value: acl(1, 7, 2, 5, 4, 5, 16, 7, 32, 5)},
		{Name: "system.posix_acl_default", Value: acl(1, 7, 2, 6, 4, 5, 8, 4, 16, 7, 32, 0)},
	}})
	w.add(tree.Entry{Name: "x/link", Type: tree.Symlink, Mode: 0o777, Linkname: "y", Xattrs: []tree.Xattr{{Name: "trusted.t", Value: "v"}}})
	w.add(tree.Entry{Name: "x/dev", Type: tree.CharDevice, Mode: 0o777, Major: 5, Minor: 1, Xattrs: []tree.Xattr{{Name: "security.selinux", Value: "label\x00"}}})
}

// acl encodes pairs of tag and permissions in the VFS format.
func acl(pairs ...uint16) string {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for i := 0; i < len(pairs); i += 2 {
		id := uint32(1<<32 - 1)
		if pairs[i] == 2 || pairs[i] == 8 {
			id = 70000
		}
		b = binary.LittleEndian.AppendUint16(b, pairs[i])
		b = binary.LittleEndian.AppendUint16(b, pairs[i+1])
		b = binary.LittleEndian.AppendUint32(b, id)
	}
	return string(b)
}

func TestB2EveryInodeCarriesItsMetadata(t *testing.T) {
	w := everything(t)
	tree := w.m.Tree()
	disk, res := w.build(tree, options(t))
	if len(res.Warnings) > 0 {
		t.Errorf("warnings: %q", res.Warnings)
	}
	compare(t, tree, w.spools(), mount(t, disk))
}

// compare compares the files that the kernel shows of a disk with the tree.
func compare(t *testing.T, merged *tree.Tree, spools []io.ReaderAt, dir string) {
	t.Helper()
	inodes := map[tree.ID]uint64{}
	n := 0
	for path, id := range merged.Walk() {
		n++
		host := filepath.Join(dir, path)
		in, st := merged.Inode(id), lstat(t, host)
		if got, want := describe(st), expect(merged, id); got != want {
			t.Errorf("%s is\n%s, want\n%s", path, got, want)
		}
		if known, ok := inodes[id]; ok && known != st.Ino {
			t.Errorf("%s is inode %d, another name of it %d", path, st.Ino, known)
		}
		inodes[id] = st.Ino
		want := map[string]string{}
		for _, x := range in.Xattrs {
			want[x.Name] = x.Value
		}
		if got := xattrs(t, host); !maps.Equal(got, want) {
			t.Errorf("%s has attributes %q, want %q", path, got, want)
		}
		compareContent(t, in, spools, host, st)
	}
	if len(inodes) != merged.NumInodes() || n < merged.NumInodes() {
		t.Errorf("compared %d names of %d inodes, the tree has %d", n, len(inodes), merged.NumInodes())
	}
}

func compareContent(t *testing.T, in tree.Inode, spools []io.ReaderAt, host string, st unix.Stat_t) {
	t.Helper()
	switch in.Type {
	case tree.Symlink:
		if got, err := os.Readlink(host); got != in.Target || err != nil {
			t.Errorf("%s points to %q (%v), want %q", host, got, err, in.Target)
		}
	case tree.Regular:
		want := make([]byte, in.Size)
		runs, off := in.Body.Runs, in.Body.Offset
		if runs == nil && in.Size > 0 {
			runs = []tree.Run{{Length: in.Size}}
		}
		blocks := int64(0)
		for _, r := range runs {
			if _, err := spools[in.Body.Layer].ReadAt(want[r.Offset:r.Offset+r.Length], off); err != nil {
				t.Fatal(err)
			}
			off += (r.Length + tree.BlockSize - 1) / tree.BlockSize * tree.BlockSize
			blocks += (r.Length + tree.BlockSize - 1) / tree.BlockSize
		}
		got, err := os.ReadFile(host)
		if err != nil || string(got) != string(want) {
			t.Errorf("%s differs in content (%v)", host, err)
		}
		const attributes, unit = 1, 8
		if st.Blocks > (blocks+attributes)*unit {
			t.Errorf("%s takes %d blocks, its data %d: the disk stores the holes", host, st.Blocks/unit, blocks)
		}
	}
}

// describe formats the fields of st that compare checks.
func describe(st unix.Stat_t) string {
	links := st.Nlink
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		links = 0
	}
	size := st.Size
	if t := st.Mode & unix.S_IFMT; t != unix.S_IFREG && t != unix.S_IFLNK {
		size = 0
	}
	return fmt.Sprintf("mode %o owner %d:%d mtime %d.%09d atime %d.%09d ctime %d.%09d links %d size %d device %d:%d", st.Mode, st.Uid, st.Gid,
		st.Mtim.Sec, st.Mtim.Nsec, st.Atim.Sec, st.Atim.Nsec, st.Ctim.Sec, st.Ctim.Nsec, links, size, unix.Major(st.Rdev), unix.Minor(st.Rdev))
}

// expect returns the text of describe that inode id must have.
func expect(merged *tree.Tree, id tree.ID) string {
	in := merged.Inode(id)
	types := map[tree.Type]uint32{
		tree.Regular: unix.S_IFREG, tree.Directory: unix.S_IFDIR, tree.Symlink: unix.S_IFLNK,
		tree.CharDevice: unix.S_IFCHR, tree.BlockDevice: unix.S_IFBLK, tree.Fifo: unix.S_IFIFO,
	}
	links := in.Links
	if in.Type == tree.Directory {
		links = 0
	}
	return fmt.Sprintf("mode %o owner %d:%d mtime %d.%09d atime %d.%09d ctime %d.%09d links %d size %d device %d:%d", types[in.Type]|uint32(in.Mode), in.UID, in.GID,
		in.Mtime.Sec, in.Mtime.Nsec, in.Mtime.Sec, in.Mtime.Nsec, in.Mtime.Sec, in.Mtime.Nsec, links, max(in.Size, int64(len(in.Target))), in.Major, in.Minor)
}
