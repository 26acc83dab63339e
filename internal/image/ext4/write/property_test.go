package write_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/banger-vm/banger/internal/image/ext4/ext4test"
	"github.com/banger-vm/banger/internal/image/ext4/read"
	"github.com/banger-vm/banger/internal/image/ext4/write"
	"github.com/banger-vm/banger/internal/image/tree"
)

// TestHashCollisionAcrossLeaves writes two names with the same hash, of which the
// second begins a leaf. The key of that leaf must have the lowest bit set.
func TestHashCollisionAcrossLeaves(t *testing.T) {
	seed := ext4test.Options().HashSeed
	long := strings.Repeat("x", 240) // 12 entries in a leaf
	byHash := map[uint32]string{}
	var a, b string
	var low []string // names with lower hashes
	for i := 0; a == "" || len(low) < 11; i++ {
		name := fmt.Sprintf("%08d%s", i, long)
		h := write.NameHash(seed, name)
		if other, ok := byHash[h]; ok && a == "" && h > 1<<30 {
			a, b = other, name
		} else if !ok && h < 1<<30 && len(low) < 11 {
			low = append(low, name)
		}
		byHash[h] = name
	}
	names := append([]string{a, b}, low...)
	for i := 0; len(names) < 25; i++ {
		name := fmt.Sprintf("high%04d%s", i, long)
		if write.NameHash(seed, name) > write.NameHash(seed, a) {
			names = append(names, name)
		}
	}
	img := ext4test.NewImage(t)
	for _, name := range names {
		img.File("d/"+name, name)
	}
	disk := img.Write(ext4test.Options())
	fs := ext4test.Open(t, disk)
	dir := lookup(t, fs, "d")
	for _, name := range names {
		if n, err := fs.Lookup(dir, name); n == 0 || err != nil {
			t.Errorf("%q: inode %d (%v)", name, n, err)
		}
	}
	compareTree(t, img, disk)
	if keys := rootKeys(t, fs, disk, dir); !slices.ContainsFunc(keys, func(k uint32) bool { return k&1 == 1 }) {
		t.Errorf("no key has the lowest bit set: %x", keys)
	}
}

func rootKeys(t *testing.T, fs *read.FS, disk string, dir *read.Inode) (keys []uint32) {
	t.Helper()
	blocks, err := ext4test.Blocks(fs, dir)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	root := make([]byte, 4096)
	if _, err := f.ReadAt(root, blocks[0]); err != nil {
		t.Fatal(err)
	}
	for i := range int(binary.LittleEndian.Uint16(root[0x22:])) {
		if i > 0 {
			keys = append(keys, binary.LittleEndian.Uint32(root[0x20+8*i:]))
		}
	}
	return keys
}

// TestB3GoldenDigest compares the bytes of a disk with those of earlier versions.
// If they change on purpose, raise layoutVersion of package build as well: it is
// part of the identity of a disk.
func TestB3GoldenDigest(t *testing.T) {
	const want = "sha256:703cec2ac409cefa874af1b63d2832dcef40e4483233e97c416d655f52455459"
	for _, procs := range []int{1, 4} {
		old := runtime.GOMAXPROCS(procs)
		got := ext4test.Digest(t, ext4test.EdgeCases(t).Write(ext4test.Options()))
		runtime.GOMAXPROCS(old)
		if got != want {
			t.Errorf("%d threads: digest %s, want %s", procs, got, want)
		}
	}
}

// around draws numbers near one of the limits.
func around(limits ...int) *rapid.Generator[int] {
	return rapid.Custom(func(t *rapid.T) int {
		return max(0, rapid.SampledFrom(limits).Draw(t, "limit")+rapid.IntRange(-2, 2).Draw(t, "offset"))
	})
}

func drawXattrs(t *rapid.T) []tree.Xattr {
	byName := map[string]string{}
	for range rapid.IntRange(0, 5).Draw(t, "xattrs") {
		space := rapid.SampledFrom([]string{"user.", "trusted.", "security."}).Draw(t, "namespace")
		name := space + strings.Repeat("n", max(1, around(1, 3, 10, 40, 253).Draw(t, "name"))) + rapid.SampledFrom([]string{"", "a", "z"}).Draw(t, "suffix")
		byName[name] = strings.Repeat("v", min(around(0, 20, 68, 1000, 4028, 4040, 9000, 65534).Draw(t, "value"), 65536))
	}
	var out []tree.Xattr
	for name, value := range byName {
		if strings.IndexByte(name, '.')+256 >= len(name) {
			out = append(out, tree.Xattr{Name: name, Value: value})
		}
	}
	slices.SortFunc(out, func(a, b tree.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func draw(t *rapid.T, img *ext4test.Image, name string) {
	kind := rapid.IntRange(0, 6).Draw(t, "kind")
	name = fmt.Sprintf("%s-%d", name, kind) // entries of one name have the same kind
	e := tree.Entry{
		Name: name, Mode: uint16(rapid.IntRange(0, 0o7777).Draw(t, "mode")), Xattrs: drawXattrs(t),
		UID: rapid.Uint32().Draw(t, "uid"), GID: rapid.Uint32().Draw(t, "gid"),
		Mtime: tree.Time{
			Sec:  rapid.Int64Range(-1<<31, 1<<34-1<<31-1).Draw(t, "sec"),
			Nsec: rapid.Uint32Range(0, 999_999_999).Draw(t, "nsec"),
		},
	}
	switch kind {
	case 0:
		e.Type = tree.Directory
		img.Add(e)
	case 1:
		e.Type, e.Linkname = tree.Symlink, strings.Repeat("t", min(max(1, around(1, 59, 60, 4095).Draw(t, "target")), 4095))
		img.Add(e)
	case 2:
		e.Type, e.Major, e.Minor = tree.BlockDevice, uint32(min(around(0, 255, 4095).Draw(t, "major"), 4095)), uint32(min(around(0, 255, 1<<20-1).Draw(t, "minor"), 1<<20-1))
		img.Add(e)
	case 3:
		var blocks []int64
		for i := range around(1, 4, 5, 340, 341).Draw(t, "runs") {
			blocks = append(blocks, int64(2*i))
		}
		img.Sparse(name, 1<<23, blocks...)
	case 4:
		img.FileEntry(e, strings.Repeat("s", around(0, 1, 4096, 8192, 200_000).Draw(t, "size")))
	case 5:
		for i := range around(3, 100, 150).Draw(t, "crowd") {
			img.File(fmt.Sprintf("%s/%0*d", name, rapid.IntRange(1, 240).Draw(t, "width"), i), "")
		}
	case 6:
		img.File(name, "linked")
		img.Add(tree.Entry{Name: name + "-link", Type: tree.HardLink, Linkname: name})
	}
}

// TestWritePropertyReadsBack writes random trees whose numbers are near the limits
// of the format, and reads them back.
func TestWritePropertyReadsBack(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	rapid.Check(t, func(r *rapid.T) {
		img := ext4test.NewImage(t)
		for i := range rapid.IntRange(0, 12).Draw(r, "entries") {
			if rapid.IntRange(0, 4).Draw(r, "layer") == 0 {
				img.Layer()
			}
			draw(r, img, fmt.Sprintf("e%d", rapid.IntRange(0, i).Draw(r, "name")))
		}
		o := ext4test.Options()
		o.Direct = rapid.IntRange(-1, len(img.Spools)-1).Draw(r, "direct")
		l, err := write.Plan(img.Tree(), o)
		if err != nil {
			r.Fatal(err)
		}
		disk := filepath.Join(t.TempDir(), "disk")
		img.WriteTo(l, disk, img.Readers(nil))
		ext4test.CheckDisk(t, disk)
		compareTree(t, img, disk)
		if err := os.Remove(disk); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			r.Fatal("the disk differs")
		}
	})
}

func BenchmarkWriteMillionFiles(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		img := ext4test.NewImage(b)
		for i := range 1_000_000 {
			img.File(fmt.Sprintf("d%03d/file-%06d", i/1000, i), "x")
		}
		tree := img.Tree()
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		disk := filepath.Join(b.TempDir(), "disk")
		b.StartTimer()
		l, err := write.Plan(tree, ext4test.Options())
		if err != nil {
			b.Fatal(err)
		}
		img.WriteTo(l, disk, img.Readers(nil))
		b.StopTimer()
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/1e6, "heapB/inode")
		b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/1e6, "allocB/inode")
		runtime.KeepAlive(l)
		runtime.KeepAlive(img)
		b.StartTimer()
	}
}
