package ext4_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/image/ext4"
	"github.com/banger-vm/banger/internal/image/tree"
)

const mib = 1 << 20

// crowd adds n empty files to the directory d.
func (w *world) crowd(n int) {
	for i := range n {
		w.add(tree.Entry{Name: fmt.Sprintf("d/name-of-file-%07d", i), Type: tree.Regular, Mode: 0o644})
	}
}

// TestWriteHugeDirectory has leaves under one and under two levels of index.
func TestWriteHugeDirectory(t *testing.T) {
	for _, n := range []int{100, 101, 102, 103, 104, 105, 20_000, 120_000} {
		w := newWorld(t)
		w.crowd(n)
		w.tree()
		start := time.Now()
		disk := w.write(options())
		t.Logf("%d names: written and checked in %v", n, time.Since(start))
		fs := openDisk(t, disk)
		dir := lookup(t, fs, "d")
		for i := 0; i < n; i += max(1, n/5000) {
			name := fmt.Sprintf("name-of-file-%07d", i)
			if _, err := fs.Lookup(dir, name); err != nil {
				t.Fatalf("%d names: %s: %v", n, name, err)
			}
		}
	}
}

func TestDirectoryOfManyDirectoriesHasOneLink(t *testing.T) {
	w := newWorld(t)
	for i := range 64_999 {
		w.dir(fmt.Sprintf("d/%d", i))
	}
	for i := range 64_998 {
		w.dir(fmt.Sprintf("e/%d", i))
	}
	fs := openDisk(t, w.write(options()))
	if d, e := lookup(t, fs, "d"), lookup(t, fs, "e"); d.Links != 1 || e.Links != 65_000 {
		t.Errorf("links %d and %d, want 1 and 65000", d.Links, e.Links)
	}
}

func TestBackupsAndGrowth(t *testing.T) {
	w := wide(t)
	o := options()
	o.Size = 1 << 30
	disk := w.write(o)
	for _, backup := range []string{"32768", "98304", "229376"} {
		damaged := filepath.Join(t.TempDir(), "damaged")
		copyDisk(t, damaged, disk)
		f, err := os.OpenFile(damaged, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteAt(make([]byte, 8192), 0) // superblock and descriptors
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		// From a backup e2fsprogs takes the bitmaps of all groups as made
		// (ext2fs_open2), also of those of which nothing is in use.
		e2tool(t, 1, "e2fsck", "-fy", "-b", backup, "-B", "4096", damaged)
		e2tool(t, 0, "e2fsck", "-fn", damaged)
		compareTree(t, w, damaged)
	}
	for _, size := range []string{"3G", "20G"} {
		e2tool(t, 0, "resize2fs", disk, size)
		e2tool(t, 0, "e2fsck", "-fn", disk)
		compareTree(t, w, disk)
	}
}

// TestLikeStockMke2fs compares the superblock with the one mke2fs makes.
func TestLikeStockMke2fs(t *testing.T) {
	for _, size := range []int64{ext4.MinSize, 256 * mib, 1 << 30, 20 << 30} {
		o := options()
		o.Size = size
		ours := e2tool(t, 0, "dumpe2fs", "-h", newWorld(t).write(o))
		stock := filepath.Join(t.TempDir(), "stock")
		if err := os.WriteFile(stock, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(stock, size); err != nil {
			t.Fatal(err)
		}
		flags := []string{"-q", "-F", "-b", "4096", "-I", "256", "-T", "ext4"}
		if size < 128*mib { // journalBlocks says why
			flags = append(flags, "-J", "size=5")
		}
		e2tool(t, 0, "mkfs.ext4", append(flags, stock)...)
		theirs := e2tool(t, 0, "dumpe2fs", "-h", stock)
		for _, field := range []string{
			"Filesystem features", "Filesystem flags", "Default mount options", "Filesystem state", "Errors behavior",
			"Filesystem OS type", "Block count", "Reserved block count", "First block", "Block size", "Group descriptor size",
			"Blocks per group", "Flex block group size", "Mount count", "Maximum mount count", "First inode", "Inode size",
			"Required extra isize", "Desired extra isize", "Journal inode", "Default directory hash", "Journal backup",
			"Checksum type", "Journal features", "Total journal blocks", "Journal sequence", "Journal start",
		} {
			a, b := fieldOf(ours, field), fieldOf(theirs, field)
			if a != b || a == "" {
				t.Errorf("%d MiB: %s: %q, mke2fs has %q", size/mib, field, a, b)
			}
		}
	}
}

func fieldOf(text, field string) string {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// TestB1SizeErrorOnlyWhenItDoesNotFit fills disks to the last megabyte, in
// place and with gaps.
func TestB1SizeErrorOnlyWhenItDoesNotFit(t *testing.T) {
	for _, direct := range []int{-1, 0, 1} {
		w := newWorld(t)
		w.file("gone", strings.Repeat("g", 70*mib)) // more than the disk
		w.file("stays", strings.Repeat("s", 8*mib))
		w.layer()
		w.file("gone", "")
		w.file("more", strings.Repeat("m", 8*mib))
		o := options()
		o.Direct, o.Size = direct, ext4.MinSize
		disk := w.write(o)
		compareTree(t, w, disk)
		l, err := ext4.Plan(w.tree(), o)
		if err != nil {
			t.Fatal(err)
		}
		if direct >= 0 {
			inPlace := filepath.Join(t.TempDir(), "disk")
			f, err := os.Create(inPlace)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := ext4.NewDataFile(f).WriteAt(w.spools[direct].Bytes(), 0); err != nil {
				t.Fatal(err)
			}
			w.writeTo(l, inPlace, w.readers(&direct))
			if digestOf(t, inPlace) != digestOf(t, disk) {
				t.Errorf("direct %d: the disk made in place differs", direct)
			}
		}
		o.Size = 40 * mib
		_, err = ext4.Plan(w.tree(), o)
		small, ok := errors.AsType[*ext4.SizeError](err)
		if !ok || small.Have != o.Size || small.Need != ext4.MinSize {
			t.Errorf("40 MiB: %v", err)
		}
	}
}

func TestPlanRefuses(t *testing.T) {
	file := func(e tree.Entry) func(*world) {
		return func(w *world) { w.fileEntry(e, "x") }
	}
	x := func(name, value string) []tree.Xattr { return []tree.Xattr{{Name: name, Value: value}} }
	var crowd []tree.Xattr
	for i := range 40 {
		crowd = append(crowd, tree.Xattr{Name: fmt.Sprintf("user.%0200d", i), Value: "v"})
	}
	for name, row := range map[string]struct {
		make func(*world)
		want string
	}{
		"lost+found that is a file":   {func(w *world) { w.file("lost+found", "x") }, "lost+found"},
		"unknown namespace":           {file(tree.Entry{Name: "f", Xattrs: x("system.nfs4_acl", "x")}), "namespace"},
		"ACL that is none":            {file(tree.Entry{Name: "f", Xattrs: x("system.posix_acl_access", "text")}), "access control list"},
		"ACL with an unknown tag":     {file(tree.Entry{Name: "f", Xattrs: x("system.posix_acl_access", "\x02\x00\x00\x00\x40\x00\x00\x00\x00\x00\x00\x00")}), "tag 0x40"},
		"more names than inode holds": {file(tree.Entry{Name: "f", Xattrs: crowd}), "more extended attributes"},
		"value above the largest":     {file(tree.Entry{Name: "f", Xattrs: x("user.a", strings.Repeat("v", 65_537))}), "65537 bytes"},
		"device number above 12 bits": {func(w *world) { w.add(tree.Entry{Name: "f", Type: tree.CharDevice, Major: 4096}) }, "device 4096:0"},
		"device number above 20 bits": {func(w *world) { w.add(tree.Entry{Name: "f", Type: tree.BlockDevice, Minor: 1 << 20}) }, "device 0:1048576"},
		"file beyond 2^32 blocks":     {func(w *world) { w.sparse("f", 1<<44) }, "the most is"},
		"data of two files in one":    {func(w *world) { w.file("a", "1"); w.spools[0].Reset(); w.file("b", "2") }, "overlaps"},
		"run that is not on a block":  {func(w *world) { w.run(tree.Run{Offset: 5, Length: 4096}) }, "data of 4096 bytes at 5"},
		"run beyond the file":         {func(w *world) { w.run(tree.Run{Offset: 8192, Length: 8192}) }, "data of 8192 bytes at 8192"},
		"runs in descending order":    {func(w *world) { w.run(tree.Run{Offset: 4096, Length: 4096}, tree.Run{Offset: 0, Length: 4096}) }, "at 0"},
		"65,001 hard links":           {func(w *world) { w.links(65_001) }, "65001 hard links"},
		"data at a negative place": {func(w *world) {
			w.add(tree.Entry{Name: "f", Type: tree.Regular, Size: 1, Body: tree.Body{Offset: -4096}})
		}, "spool"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			row.make(w)
			if _, err := ext4.Plan(w.tree(), options()); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q", err, row.want)
			}
		})
	}
}

func (w *world) run(runs ...tree.Run) {
	w.add(tree.Entry{Name: "f", Type: tree.Regular, Size: 10_000, Body: tree.Body{Runs: runs}})
}

func (w *world) links(n int) {
	w.file("f", "x")
	for i := range n - 1 {
		w.add(tree.Entry{Name: fmt.Sprintf("l/%d", i), Type: tree.HardLink, Linkname: "f"})
	}
}

func TestMostHardLinks(t *testing.T) {
	w := newWorld(t)
	w.links(65_000)
	if in := lookup(t, openDisk(t, w.write(options())), "f"); in.Links != 65_000 {
		t.Errorf("%d links", in.Links)
	}
}

func TestClampedTimesAreTold(t *testing.T) {
	w := newWorld(t)
	for i := range 7 {
		w.fileEntry(tree.Entry{Name: fmt.Sprintf("f%d", i), Mtime: tree.Time{Sec: 1 << 40, Nsec: 5}}, "")
	}
	l, err := ext4.Plan(w.tree(), options())
	if err != nil {
		t.Fatal(err)
	}
	if got := l.Warnings(); len(got) != 6 || !strings.HasPrefix(got[0], "f0: ") || !strings.HasPrefix(got[5], "2 more") {
		t.Errorf("%q", got)
	}
	if in := lookup(t, openDisk(t, w.write(options())), "f0"); in.Mtime != (tree.Time{Sec: 1<<34 - 1<<31 - 1}) {
		t.Errorf("clamped to %v", in.Mtime)
	}
}

func TestImageOwnsLostFound(t *testing.T) {
	w := newWorld(t)
	w.add(tree.Entry{Name: "lost+found", Type: tree.Directory, Mode: 0o750, UID: 7})
	w.file("lost+found/#12", "found")
	disk := w.write(options())
	compareTree(t, w, disk)
	if in := lookup(t, openDisk(t, disk), "lost+found"); in.Number != 11 || in.Size != 4*4096 {
		t.Errorf("inode %d of %d bytes", in.Number, in.Size)
	}
}

// TestGeometries checks disks of sizes at which something changes.
func TestGeometries(t *testing.T) {
	const group = 128 * mib
	for _, size := range []int64{
		ext4.MinSize, ext4.MinSize + 4096, group - 4096, group, group + 4096, group + 300*4096, group + 308*4096, 2 * group,
		16 * group, 16*group + 500*4096, 16*group + 600*4096, 17 * group, 64 * group, 65 * group, 1 << 40, ext4.MaxSize,
	} {
		w := newWorld(t)
		w.file("f", strings.Repeat("x", 10*mib))
		w.crowd(10)
		o := options()
		o.Size = size
		disk := filepath.Join(t.TempDir(), "disk")
		l, err := ext4.Plan(w.tree(), o)
		if err != nil {
			t.Fatal(err)
		}
		w.writeTo(l, disk, w.readers(nil))
		if size < 1<<40 {
			checkDisk(t, disk)
		} else {
			e2tool(t, 0, "dumpe2fs", "-h", disk)
			lookup(t, openDisk(t, disk), "d/name-of-file-0000009")
		}
		var st unix.Stat_t
		if err := unix.Stat(disk, &st); err != nil || st.Blocks*512 > 64*mib {
			t.Errorf("disk of %d bytes takes %d", size, st.Blocks*512)
		}
		if err := os.Remove(disk); err != nil {
			t.Error(err)
		}
	}
}

// TestC3MemoryPerInode bounds what a layout has beside the tree.
func TestC3MemoryPerInode(t *testing.T) {
	const n = 200_000
	w := newWorld(t)
	w.crowd(n)
	tree := w.tree()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	l, err := ext4.Plan(tree, options())
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	per := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / n
	t.Logf("%d bytes an inode", per)
	if per > 40 {
		t.Errorf("%d bytes an inode, want 40 at most", per)
	}
	runtime.KeepAlive(l)
}
