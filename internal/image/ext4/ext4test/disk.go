package ext4test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/base/sparse"
	"github.com/banger-vm/banger/internal/image/ext4/check"
	"github.com/banger-vm/banger/internal/image/ext4/format"
	"github.com/banger-vm/banger/internal/image/ext4/read"
	"github.com/banger-vm/banger/internal/image/tree"
)

// Open opens a disk until the test ends.
func Open(t testing.TB, disk string) *read.FS {
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
	fs, err := read.Open(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

// Blocks returns the offsets in bytes of the blocks of an inode, in their order in
// the file.
func Blocks(fs *read.FS, in *read.Inode) ([]int64, error) {
	extents, err := fs.Extents(in, nil)
	var out []int64
	for _, e := range extents {
		for i := range e.Count {
			out = append(out, int64(e.Physical+i)*int64(fs.Super().BlockSize))
		}
	}
	return out, err
}

// CopyDisk copies a disk and keeps its holes.
func CopyDisk(t testing.TB, dst, src string) {
	t.Helper()
	in, err := os.Open(src)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(dst)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(sparse.Copy(t.Context(), out, in), out.Close()); err != nil {
		t.Fatal(err)
	}
}

// LookupAll reports an error if Lookup does not find every name on the disk, or if
// it finds another one. At least one directory must have a hash tree.
func LookupAll(t *testing.T, fs *read.FS) {
	t.Helper()
	names, trees := 0, 0
	err := fs.Walk(func(_ string, in *read.Inode) error {
		if in.Type != tree.Directory {
			return nil
		}
		if in.Flags&format.FlagIndex != 0 {
			trees++
		}
		if n, err := fs.Lookup(in, "no such name"); n != 0 || err != nil {
			t.Errorf("directory %d: a missing name has inode %d (%v)", in.Number, n, err)
		}
		return fs.ReadDir(in, func(e read.DirEntry) error {
			names++
			if n, err := fs.Lookup(in, e.Name); n != e.Inode || err != nil {
				t.Errorf("directory %d: %q has inode %d (%v), want %d", in.Number, e.Name, n, err, e.Inode)
			}
			return nil
		})
	})
	if err != nil || names == 0 || trees == 0 {
		t.Errorf("looked up %d names in %d hash trees (%v)", names, trees, err)
	}
}

// CheckDisk fails the test if e2fsck or package check finds a fault.
func CheckDisk(t testing.TB, disk string) {
	t.Helper()
	E2Tool(t, 0, "e2fsck", "-fn", disk)
	CheckMetadata(t, Open(t, disk))
}

// CheckMetadata fails the test if package check finds a fault.
func CheckMetadata(t testing.TB, fs *read.FS) {
	t.Helper()
	problems, err := check.Metadata(t.Context(), fs)
	if err != nil || len(problems) > 0 {
		t.Fatalf("check: %v\n%s", err, strings.Join(problems, "\n"))
	}
}

// Digest returns the SHA-256 digest of a disk.
func Digest(t testing.TB, disk string) string {
	t.Helper()
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum, err := sparse.Digest(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	return string(sum)
}
