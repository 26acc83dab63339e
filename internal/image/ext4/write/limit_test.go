package write_test

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

	"github.com/banger-vm/banger/internal/image/ext4/ext4test"
	"github.com/banger-vm/banger/internal/image/ext4/write"
	"github.com/banger-vm/banger/internal/image/tree"
)

const mib = 1 << 20

// crowd adds n empty files to directory d.
func crowd(img *ext4test.Image, n int) {
	for i := range n {
		img.Add(tree.Entry{Name: fmt.Sprintf("d/name-of-file-%07d", i), Type: tree.Regular, Mode: 0o644})
	}
}

// TestWriteHugeDirectory writes directories around the counts of names at which they
// get a hash tree and a second level of nodes.
func TestWriteHugeDirectory(t *testing.T) {
	for _, n := range []int{100, 101, 102, 103, 104, 105, 20_000, 120_000} {
		img := ext4test.NewImage(t)
		crowd(img, n)
		img.Tree()
		start := time.Now()
		disk := img.Write(ext4test.Options())
		t.Logf("%d names: written and checked in %v", n, time.Since(start))
		fs := ext4test.Open(t, disk)
		dir := lookup(t, fs, "d")
		for i := 0; i < n; i += max(1, n/5000) {
			name := fmt.Sprintf("name-of-file-%07d", i)
			if number, err := fs.Lookup(dir, name); number == 0 || err != nil {
				t.Fatalf("%d names: %s: inode %d (%v)", n, name, number, err)
			}
		}
	}
}

func TestDirectoryOfManyDirectoriesHasOneLink(t *testing.T) {
	img := ext4test.NewImage(t)
	for i := range 64_999 {
		img.Dir(fmt.Sprintf("d/%d", i))
	}
	for i := range 64_998 {
		img.Dir(fmt.Sprintf("e/%d", i))
	}
	fs := ext4test.Open(t, img.Write(ext4test.Options()))
	if d, e := lookup(t, fs, "d"), lookup(t, fs, "e"); d.Links != 1 || e.Links != 65_000 {
		t.Errorf("links %d and %d, want 1 and 65000", d.Links, e.Links)
	}
}

func TestBackupsAndGrowth(t *testing.T) {
	img := ext4test.EdgeCases(t)
	o := ext4test.Options()
	o.Size = 1 << 30
	disk := img.Write(o)
	for _, backup := range []string{"32768", "98304", "229376"} {
		damaged := filepath.Join(t.TempDir(), "damaged")
		ext4test.CopyDisk(t, damaged, disk)
		f, err := os.OpenFile(damaged, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteAt(make([]byte, 8192), 0) // superblock and descriptors
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		// When it starts from a backup, e2fsprogs ignores the flags of groups without a
		// bitmap (ext2fs_open2): the zero block in place of the bitmap must do.
		ext4test.E2Tool(t, 1, "e2fsck", "-fy", "-b", backup, "-B", "4096", damaged)
		ext4test.E2Tool(t, 0, "e2fsck", "-fn", damaged)
		compareTree(t, img, damaged)
	}
	for _, size := range []string{"3G", "20G"} {
		ext4test.E2Tool(t, 0, "resize2fs", disk, size)
		ext4test.E2Tool(t, 0, "e2fsck", "-fn", disk)
		compareTree(t, img, disk)
	}
}

// TestSuperblockEqualsMke2fs compares the superblock with the one of mke2fs.
func TestSuperblockEqualsMke2fs(t *testing.T) {
	for _, size := range []int64{write.MinSize, 256 * mib, 1 << 30, 20 << 30} {
		o := ext4test.Options()
		o.Size = size
		ours := ext4test.E2Tool(t, 0, "dumpe2fs", "-h", ext4test.NewImage(t).Write(o))
		stock := filepath.Join(t.TempDir(), "stock")
		if err := os.WriteFile(stock, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(stock, size); err != nil {
			t.Fatal(err)
		}
		flags := []string{"-q", "-F", "-b", "4096", "-I", "256", "-T", "ext4"}
		if size < 128*mib { // see journalBlocks
			flags = append(flags, "-J", "size=5")
		}
		ext4test.E2Tool(t, 0, "mkfs.ext4", append(flags, stock)...)
		theirs := ext4test.E2Tool(t, 0, "dumpe2fs", "-h", stock)
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

// TestB1SizeErrorOnlyIfTreeDoesNotFit fills a disk that has room for the tree only
// if replaced bodies leave no gaps.
func TestB1SizeErrorOnlyIfTreeDoesNotFit(t *testing.T) {
	for _, direct := range []int{-1, 0, 1} {
		img := ext4test.NewImage(t)
		img.File("gone", strings.Repeat("g", 70*mib)) // more than the disk
		img.File("stays", strings.Repeat("s", 8*mib))
		img.Layer()
		img.File("gone", "")
		img.File("more", strings.Repeat("m", 8*mib))
		o := ext4test.Options()
		o.Direct, o.Size = direct, write.MinSize
		disk := img.Write(o)
		compareTree(t, img, disk)
		l, err := write.Plan(img.Tree(), o)
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
			if _, err := write.NewDataFile(f).WriteAt(img.Spools[direct].Bytes(), 0); err != nil {
				t.Fatal(err)
			}
			img.WriteTo(l, inPlace, img.Readers(&direct))
			if ext4test.Digest(t, inPlace) != ext4test.Digest(t, disk) {
				t.Errorf("direct %d: the disk made in place differs", direct)
			}
		}
		o.Size = 40 * mib
		_, err = write.Plan(img.Tree(), o)
		small, ok := errors.AsType[*write.SizeError](err)
		if !ok || small.Have != o.Size || small.Need != write.MinSize {
			t.Errorf("40 MiB: %v", err)
		}
	}
}

func TestPlanRefuses(t *testing.T) {
	file := func(e tree.Entry) func(*ext4test.Image) {
		return func(img *ext4test.Image) { img.FileEntry(e, "x") }
	}
	x := func(name, value string) []tree.Xattr { return []tree.Xattr{{Name: name, Value: value}} }
	var crowd []tree.Xattr
	for i := range 40 {
		crowd = append(crowd, tree.Xattr{Name: fmt.Sprintf("user.%0200d", i), Value: "v"})
	}
	for name, row := range map[string]struct {
		make func(*ext4test.Image)
		want string
	}{
		"lost+found that is a file":   {func(img *ext4test.Image) { img.File("lost+found", "x") }, "lost+found"},
		"ACL that is a text":          {file(tree.Entry{Name: "f", Xattrs: x("system.posix_acl_access", "text")}), "access control list"},
		"ACL with an unknown tag":     {file(tree.Entry{Name: "f", Xattrs: x("system.posix_acl_access", "\x02\x00\x00\x00\x40\x00\x00\x00\x00\x00\x00\x00")}), "tag 0x40"},
		"more names than inode holds": {file(tree.Entry{Name: "f", Xattrs: crowd}), "more extended attributes"},
		"value above the largest":     {file(tree.Entry{Name: "f", Xattrs: x("user.a", strings.Repeat("v", 65_537))}), "65537 bytes"},
		"device number above 12 bits": {func(img *ext4test.Image) { img.Add(tree.Entry{Name: "f", Type: tree.CharDevice, Major: 4096}) }, "device 4096:0"},
		"device number above 20 bits": {func(img *ext4test.Image) { img.Add(tree.Entry{Name: "f", Type: tree.BlockDevice, Minor: 1 << 20}) }, "device 0:1048576"},
		"file beyond 2^32 blocks":     {func(img *ext4test.Image) { img.Sparse("f", 1<<44) }, "the most is"},
		"data of two files in one":    {func(img *ext4test.Image) { img.File("a", "1"); img.Spools[0].Reset(); img.File("b", "2") }, "overlaps"},
		"run that is not on a block":  {func(img *ext4test.Image) { run(img, tree.Run{Offset: 5, Length: 4096}) }, "data of 4096 bytes at 5"},
		"run beyond the file":         {func(img *ext4test.Image) { run(img, tree.Run{Offset: 8192, Length: 8192}) }, "data of 8192 bytes at 8192"},
		"runs in descending order": {func(img *ext4test.Image) {
			run(img, tree.Run{Offset: 4096, Length: 4096}, tree.Run{Offset: 0, Length: 4096})
		}, "at 0"},
		"65,001 hard links": {func(img *ext4test.Image) { links(img, 65_001) }, "65001 hard links"},
		"data at a negative place": {func(img *ext4test.Image) {
			img.Add(tree.Entry{Name: "f", Type: tree.Regular, Size: 1, Body: tree.Body{Offset: -4096}})
		}, "spool"},
	} {
		t.Run(name, func(t *testing.T) {
			img := ext4test.NewImage(t)
			row.make(img)
			if _, err := write.Plan(img.Tree(), ext4test.Options()); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q", err, row.want)
			}
		})
	}
}

func run(img *ext4test.Image, runs ...tree.Run) {
	img.Add(tree.Entry{Name: "f", Type: tree.Regular, Size: 10_000, Body: tree.Body{Runs: runs}})
}

func links(img *ext4test.Image, n int) {
	img.File("f", "x")
	for i := range n - 1 {
		img.Add(tree.Entry{Name: fmt.Sprintf("l/%d", i), Type: tree.HardLink, Linkname: "f"})
	}
}

func TestMostHardLinks(t *testing.T) {
	img := ext4test.NewImage(t)
	links(img, 65_000)
	if in := lookup(t, ext4test.Open(t, img.Write(ext4test.Options())), "f"); in.Links != 65_000 {
		t.Errorf("%d links", in.Links)
	}
}

func TestWarningsNameClampedTimes(t *testing.T) {
	img := ext4test.NewImage(t)
	for i := range 7 {
		img.FileEntry(tree.Entry{Name: fmt.Sprintf("f%d", i), Mtime: tree.Time{Sec: 1 << 40, Nsec: 5}}, "")
	}
	l, err := write.Plan(img.Tree(), ext4test.Options())
	if err != nil {
		t.Fatal(err)
	}
	if got := l.Warnings(); len(got) != 6 || !strings.HasPrefix(got[0], "f0: ") || !strings.HasPrefix(got[5], "2 more") {
		t.Errorf("%q", got)
	}
	if in := lookup(t, ext4test.Open(t, img.Write(ext4test.Options())), "f0"); in.Mtime != (tree.Time{Sec: 1<<34 - 1<<31 - 1}) {
		t.Errorf("clamped to %v", in.Mtime)
	}
}

func TestTreeWithLostFound(t *testing.T) {
	img := ext4test.NewImage(t)
	img.Add(tree.Entry{Name: "lost+found", Type: tree.Directory, Mode: 0o750, UID: 7})
	img.File("lost+found/#12", "found")
	disk := img.Write(ext4test.Options())
	compareTree(t, img, disk)
	if in := lookup(t, ext4test.Open(t, disk), "lost+found"); in.Number != 11 || in.Size != 4*4096 {
		t.Errorf("inode %d of %d bytes", in.Number, in.Size)
	}
}

// TestGeometries writes disks of sizes around the ends of groups and flex groups.
func TestGeometries(t *testing.T) {
	const group = 128 * mib
	for _, size := range []int64{
		write.MinSize, write.MinSize + 4096, group - 4096, group, group + 4096, group + 300*4096, group + 308*4096, 2 * group,
		16 * group, 16*group + 500*4096, 16*group + 600*4096, 17 * group, 64 * group, 65 * group, 1 << 40, write.MaxSize,
	} {
		img := ext4test.NewImage(t)
		img.File("f", strings.Repeat("x", 10*mib))
		crowd(img, 10)
		o := ext4test.Options()
		o.Size = size
		disk := filepath.Join(t.TempDir(), "disk")
		l, err := write.Plan(img.Tree(), o)
		if err != nil {
			t.Fatal(err)
		}
		img.WriteTo(l, disk, img.Readers(nil))
		if size < 1<<40 {
			ext4test.CheckDisk(t, disk)
		} else {
			ext4test.E2Tool(t, 0, "dumpe2fs", "-h", disk)
			lookup(t, ext4test.Open(t, disk), "d/name-of-file-0000009")
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

// TestC3MemoryPerInode bounds the memory of a layout, without that of the tree.
func TestC3MemoryPerInode(t *testing.T) {
	const n = 200_000
	img := ext4test.NewImage(t)
	crowd(img, n)
	tree := img.Tree()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	l, err := write.Plan(tree, ext4test.Options())
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
