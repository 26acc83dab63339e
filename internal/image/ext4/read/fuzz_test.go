package read_test

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/image/ext4/check"
	"github.com/banger-vm/banger/internal/image/ext4/ext4test"
	"github.com/banger-vm/banger/internal/image/ext4/read"
	"github.com/banger-vm/banger/internal/image/tree"
)

// FuzzOpen changes bytes of a disk, then checks it and reads everything. One of
// the disks has no checksums, so the changes reach the code that relies on them.
func FuzzOpen(f *testing.F) {
	folder := ext4test.SourceFolder(f, 120)
	var disks [][]byte
	for _, flags := range [][]string{
		{"-b", "1024", "-N", "512", "-O", "^metadata_csum,^has_journal,^resize_inode,ea_inode"},
		{"-b", "4096", "-N", "512", "-O", "^has_journal,^resize_inode"},
	} {
		file := ext4test.StockDisk(f, folder, "12M", flags...)
		ext4test.E2Tool(f, 1, "e2fsck", "-fyD", file)
		disk, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		disks = append(disks, disk)
	}
	img := ext4test.NewImage(f)
	for i := range 200 {
		img.File("crowd/"+ext4test.CrowdName(i), "c")
	}
	img.Sparse("sparse", 1<<33, 0, 2, 4, 6, 8)
	native, err := os.ReadFile(img.Write(ext4test.Options()))
	if err != nil {
		f.Fatal(err)
	}
	disks = append(disks, native)
	seeds := 0
	for i, disk := range disks {
		starts := []int64{1024, 1024 + 0x18, 1024 + 0x60}
		// Hundreds of the starts are inodes. A few suffice as seeds.
		for j, at := range metadataStarts(f, disk) {
			if j < 20 || j%8 == 0 {
				starts = append(starts, at)
			}
		}
		for _, at := range starts {
			f.Add(uint8(i), []byte{byte(at >> 24), byte(at >> 16), byte(at >> 8), byte(at), 0xff, 0x01})
			seeds++
		}
	}
	if seeds < 20 {
		f.Fatalf("%d seeds", seeds)
	}
	f.Fuzz(func(t *testing.T, disk uint8, patches []byte) {
		o := patched{Overlay: ext4test.Overlay{Disk: disks[int(disk)%len(disks)], At: -1}, patches: patches}
		fs, err := read.Open(&o, int64(len(o.Disk)))
		if err != nil {
			return
		}
		if _, err := check.Metadata(t.Context(), fs); err != nil {
			t.Fatal(err)
		}
		readAll(fs)
	})
}

// patched is a disk with changed words.
type patched struct {
	ext4test.Overlay
	patches []byte // each has 4 bytes of offset, big-endian, and 2 bytes that replace the disk's
}

func (p *patched) ReadAt(b []byte, off int64) (int, error) {
	n, err := p.Overlay.ReadAt(b, off)
	for rest := p.patches; len(rest) >= 6; rest = rest[6:] {
		at := int64(rest[0])<<24 | int64(rest[1])<<16 | int64(rest[2])<<8 | int64(rest[3])
		for i, c := range rest[4:6] {
			if k := at + int64(i) - off; k >= 0 && k < int64(n) {
				b[k] = c
			}
		}
	}
	return n, err
}

// metadataStarts returns the offsets at which a check of the disk reads.
func metadataStarts(t testing.TB, disk []byte) (list []int64) {
	seen := map[int64]bool{}
	o := ext4test.Overlay{Disk: disk, At: -1, Note: func(off, _ int64) {
		if !seen[off] {
			seen[off] = true
			list = append(list, off)
		}
	}}
	o.Problems(t)
	return list
}

var errEnough = errors.New("enough")

// readAll reads all files. It ignores errors: the test is that it ends.
func readAll(fs *read.FS) {
	budget := 2000
	_ = fs.Walk(func(_ string, in *read.Inode) error {
		if budget--; budget < 0 {
			return errEnough
		}
		_, _ = fs.Xattrs(in)
		_, _ = fs.Readlink(in)
		_, _ = fs.Lookup(in, ext4test.CrowdName(7))
		if in.Type != tree.Regular {
			return nil
		}
		if f, err := fs.Data(in); err == nil {
			buf := make([]byte, 5000)
			for _, r := range f.Runs() {
				_, _ = f.ReadAt(buf, r.Offset)
			}
			_, _ = f.ReadAt(buf, max(0, f.Size()-100))
		}
		return nil
	})
}

// TestOpenRefuses opens disks with a wrong superblock.
func TestOpenRefuses(t *testing.T) {
	file := ext4test.StockDisk(t, t.TempDir(), "8M", "-O", "^metadata_csum")
	disk, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name  string
		at    int64
		bytes []byte
		want  string
	}{
		{"no magic", 0x38, []byte{0}, "not an ext4 file system"},
		{"huge blocks", 0x18, []byte{31}, "block size"},
		{"more blocks than the disk", 0x4, []byte{0xff, 0xff, 0xff, 0x7f}, "do not fit"},
		{"blocks beyond 2^63", 0x150, []byte{0xff, 0xff, 0xff, 0xff}, "do not fit"},
		{"no blocks a group", 0x20, []byte{0, 0, 0, 0}, "blocks a group"},
		{"no inodes a group", 0x28, []byte{0, 0, 0, 0}, "inodes a group"},
		{"inodes larger than blocks", 0x58, []byte{0, 0x80}, "inode size"},
		{"descriptors of no size", 0xfe, []byte{0, 0}, "descriptor size"},
		{"inline_data", 0x61, []byte{0x82}, "inline_data"},
		{"unknown feature", 0x63, []byte{0x80}, "incompat bit 31"},
		{"journal to be replayed", 0x60, []byte{0xc6}, "journal needs recovery"},
		{"bigalloc", 0x65, []byte{0x02}, "bigalloc"},
	} {
		t.Run(row.name, func(t *testing.T) {
			bad := append([]byte(nil), disk...)
			copy(bad[1024+row.at:], row.bytes)
			_, err := read.Open(&ext4test.Overlay{Disk: bad, At: -1}, int64(len(bad)))
			expectError(t, err, row.want)
		})
	}
	_, err = read.Open(&ext4test.Overlay{Disk: disk[:1500], At: -1}, 1500)
	expectError(t, err, "too small")
	_, err = read.Open(&ext4test.Overlay{Disk: disk[:1<<20], At: -1}, 1<<20)
	expectError(t, err, "do not fit")
	_, err = read.Open(&ext4test.Overlay{Disk: disk[:1500], At: -1}, int64(len(disk)))
	if !errors.Is(err, io.EOF) {
		t.Errorf("error %v, want the end of the file", err)
	}
}

func expectError(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %q", err, want)
	}
}
