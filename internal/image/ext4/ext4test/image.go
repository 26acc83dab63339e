package ext4test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/image/ext4/write"
	"github.com/banger-vm/banger/internal/image/tree"
)

// Image collects the entries of an image. It packs the bodies of each layer
// into a spool, as package layer does.
type Image struct {
	Spools []*bytes.Buffer // by layer

	t      testing.TB
	merger *tree.Merger
	merged *tree.Tree
}

// NewImage returns an image with one layer and no entries.
func NewImage(t testing.TB) *Image {
	img := &Image{t: t, merger: tree.NewMerger(tree.Options{MaxInodes: 5_000_000})}
	img.Layer()
	return img
}

// Tree returns the merged tree. No entry can be added afterwards.
func (img *Image) Tree() *tree.Tree {
	if img.merged == nil {
		img.merged = img.merger.Tree()
	}
	return img.merged
}

// Layer begins another layer.
func (img *Image) Layer() {
	if err := img.merger.NextLayer(); err != nil {
		img.t.Fatal(err)
	}
	img.Spools = append(img.Spools, &bytes.Buffer{})
}

// Add adds an entry. An entry without a time gets a fixed one.
func (img *Image) Add(e tree.Entry) {
	img.t.Helper()
	if e.Mtime == (tree.Time{}) {
		e.Mtime = tree.Time{Sec: 1_700_000_000, Nsec: 123_456_789}
	}
	if err := img.merger.Add(&e); err != nil {
		img.t.Fatal(err)
	}
}

// Dir adds a directory.
func (img *Image) Dir(name string) {
	img.t.Helper()
	img.Add(tree.Entry{Name: name, Type: tree.Directory, Mode: 0o755})
}

// File adds a regular file.
func (img *Image) File(name, content string) {
	img.t.Helper()
	img.FileEntry(tree.Entry{Name: name, Mode: 0o644}, content)
}

// FileEntry adds a regular file with the name and metadata of e.
func (img *Image) FileEntry(e tree.Entry, content string) {
	img.t.Helper()
	spool := img.Spools[len(img.Spools)-1]
	e.Type, e.Size = tree.Regular, int64(len(content))
	e.Body.Offset = int64(spool.Len())
	spool.WriteString(content)
	spool.Write(make([]byte, -len(content)&(tree.BlockSize-1)))
	img.Add(e)
}

// Sparse adds a file that has a block of data at each of the given blocks.
func (img *Image) Sparse(name string, size int64, blocks ...int64) {
	img.t.Helper()
	spool := img.Spools[len(img.Spools)-1]
	e := tree.Entry{Name: name, Type: tree.Regular, Mode: 0o600, Size: size}
	e.Body = tree.Body{Offset: int64(spool.Len()), Runs: []tree.Run{}}
	for _, b := range blocks {
		spool.Write(bytes.Repeat([]byte{byte(b%255) + 1}, tree.BlockSize))
		if n := len(e.Body.Runs); n > 0 && e.Body.Runs[n-1].Offset+e.Body.Runs[n-1].Length == b*tree.BlockSize {
			e.Body.Runs[n-1].Length += tree.BlockSize
		} else {
			e.Body.Runs = append(e.Body.Runs, tree.Run{Offset: b * tree.BlockSize, Length: tree.BlockSize})
		}
	}
	img.Add(e)
}

// Options returns fixed options for a disk.
func Options() write.Options {
	return write.Options{
		Label: "root", UUID: [16]byte{1, 2, 3}, HashSeed: [16]byte{4, 5, 6},
		Created: tree.Time{Sec: 1_700_000_000}, Direct: -1,
	}
}

// Write writes the image to a disk, checks it and returns its path.
func (img *Image) Write(o write.Options) string {
	img.t.Helper()
	disk := filepath.Join(img.t.TempDir(), "disk.ext4")
	l, err := write.Plan(img.Tree(), o)
	if err != nil {
		img.t.Fatal(err)
	}
	img.WriteTo(l, disk, img.Readers(nil))
	CheckDisk(img.t, disk)
	return disk
}

// Readers returns readers of the spools. The reader of layer *without is nil,
// for a disk that already holds the bodies of this layer.
func (img *Image) Readers(without *int) []io.ReaderAt {
	var out []io.ReaderAt
	for i, s := range img.Spools {
		if without != nil && *without == i {
			out = append(out, nil)
			continue
		}
		out = append(out, bytes.NewReader(s.Bytes()))
	}
	return out
}

// WriteTo writes the image to a disk, which may exist, and checks the reports
// of progress.
func (img *Image) WriteTo(l *write.Layout, disk string, spools []io.ReaderAt) {
	img.t.Helper()
	f, err := os.OpenFile(disk, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		img.t.Fatal(err)
	}
	defer f.Close()
	last, sum := int64(-1), int64(0)
	err = l.Write(img.t.Context(), f, spools, func(done, total int64) {
		if done < last || done > total {
			img.t.Errorf("progress %d after %d of %d", done, last, total)
		}
		last, sum = done, total
	})
	if err != nil {
		img.t.Fatal(err)
	}
	if last != sum {
		img.t.Errorf("progress ends at %d of %d", last, sum)
	}
	if info, err := f.Stat(); err != nil || info.Size() != l.Size() {
		img.t.Errorf("disk has %v bytes, want %d (%v)", info.Size(), l.Size(), err)
	}
}

// EdgeCases returns an image with entries at the limits of the format.
func EdgeCases(t testing.TB) *Image {
	img := NewImage(t)
	x := func(name, value string) tree.Xattr { return tree.Xattr{Name: name, Value: value} }
	img.Dir("bin")
	img.File("bin/sh", "#!shell")
	img.File("empty", "")
	img.FileEntry(tree.Entry{Name: "ids", Mode: 0o6755, UID: 70_000, GID: 4_000_000_000}, "high ids")
	for name, sec := range map[string]int64{"m1": -1, "y1960": -315_619_200, "t31": 1 << 31, "t32": 1 << 32, "y2400": 13_569_465_600, "first": -1 << 31, "last": 1<<34 - 1<<31 - 1} {
		img.FileEntry(tree.Entry{Name: "time-" + name, Mode: 0o644, Mtime: tree.Time{Sec: sec, Nsec: 999_999_999}}, "")
	}
	for i, dev := range [][2]uint32{{1, 3}, {255, 255}, {256, 0}, {0, 256}, {4095, 1048575}, {8, 0xabcde}} {
		img.Add(tree.Entry{Name: fmt.Sprintf("c%d", i), Type: tree.CharDevice, Mode: 0o620, Major: dev[0], Minor: dev[1]})
		img.Add(tree.Entry{Name: fmt.Sprintf("b%d", i), Type: tree.BlockDevice, Mode: 0o660, Major: dev[0], Minor: dev[1]})
	}
	img.Add(tree.Entry{Name: "fifo", Type: tree.Fifo, Mode: 0o600})
	for _, n := range []int{1, 59, 60, 61, 4095} {
		img.Add(tree.Entry{Name: fmt.Sprintf("link%d", n), Type: tree.Symlink, Mode: 0o777, Linkname: strings.Repeat("t", n)})
	}
	img.Add(tree.Entry{Name: "linklink", Type: tree.HardLink, Linkname: "link60"})
	img.Add(tree.Entry{Name: "sh2", Type: tree.HardLink, Linkname: "bin/sh"})
	img.File(strings.Repeat("n", 255), "long name")
	img.File("\xff\xfe\n bytes", "name of bytes")
	img.File("implied/parent/of", "x")
	img.Add(tree.Entry{Name: "implied", Type: tree.Directory, Mode: 0o1770, UID: 3, Mtime: tree.Time{Sec: 12345}})
	img.FileEntry(tree.Entry{Name: "order", Mode: 0o644, Xattrs: []tree.Xattr{
		x("security.capability", "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"),
		x("trusted.overlay.opaque", "y"), x("user.aaaa", strings.Repeat("1", 60)), x("user.b", strings.Repeat("2", 70)), x("user.ccc", ""), x("user.zz", "zz"),
	}}, "xattrs")
	acl := "\x02\x00\x00\x00" + "\x01\x00\x07\x00\xff\xff\xff\xff" + "\x02\x00\x04\x00\xe8\x03\x00\x00" + "\x04\x00\x05\x00\xff\xff\xff\xff" + "\x10\x00\x07\x00\xff\xff\xff\xff" + "\x20\x00\x05\x00\xff\xff\xff\xff"
	img.Add(tree.Entry{Name: "acl", Type: tree.Directory, Mode: 0o775, Xattrs: []tree.Xattr{x("system.posix_acl_access", acl), x("system.posix_acl_default", acl)}})
	for _, n := range []int{60, 64, 65, 3000, 4000, 4096, 10_000, 65_536} {
		img.FileEntry(tree.Entry{Name: fmt.Sprintf("xattr%d", n), Mode: 0o644, Xattrs: []tree.Xattr{x("user.a", strings.Repeat("v", n)), x("user.b", strings.Repeat("w", n/2))}}, "x")
	}
	for _, n := range []int{1, 4095, 4096, 4097, 300_000} {
		img.File(fmt.Sprintf("size%d", n), strings.Repeat("s", n))
	}
	img.Sparse("hole", 1<<40)
	img.Sparse("sparse4", 1<<33, 0, 2, 4, 6)
	img.Sparse("sparse5", 1<<33+5, 0, 2, 4, 6, 1<<20)
	var many []int64
	for i := range int64(1500) {
		many = append(many, 2*i)
	}
	img.Sparse("sparse340", 1<<24, many[:340]...)
	img.Sparse("sparse341", 1<<24, many[:341]...)
	img.Sparse("sparse1361", 1<<24, many[:1361]...)
	for i := range 700 {
		img.File(fmt.Sprintf("crowd/%04d", i), "c")
	}
	img.Layer()
	img.File("second/layer", strings.Repeat("2", 100_000))
	img.File("size4097", "replaced")
	return img
}
