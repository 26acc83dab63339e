package ext4_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/base/sparse"
	"github.com/banger-vm/banger/internal/image/ext4"
	"github.com/banger-vm/banger/internal/image/tree"
)

// world is an image in the making: entries with their bodies in spools, as
// the layer package packs them.
type world struct {
	t      testing.TB
	m      *tree.Merger
	spools []*bytes.Buffer
	made   *tree.Tree
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, m: tree.NewMerger(tree.Options{MaxInodes: 5_000_000})}
	w.layer()
	return w
}

func (w *world) tree() *tree.Tree {
	if w.made == nil {
		w.made = w.m.Tree()
	}
	return w.made
}

func (w *world) layer() {
	if err := w.m.NextLayer(); err != nil {
		w.t.Fatal(err)
	}
	w.spools = append(w.spools, &bytes.Buffer{})
}

func (w *world) add(e tree.Entry) {
	w.t.Helper()
	if e.Mtime == (tree.Time{}) {
		e.Mtime = tree.Time{Sec: 1_700_000_000, Nsec: 123_456_789}
	}
	if err := w.m.Add(&e); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) dir(name string) {
	w.t.Helper()
	w.add(tree.Entry{Name: name, Type: tree.Directory, Mode: 0o755})
}

func (w *world) file(name, content string) {
	w.t.Helper()
	w.fileEntry(tree.Entry{Name: name, Mode: 0o644}, content)
}

func (w *world) fileEntry(e tree.Entry, content string) {
	w.t.Helper()
	spool := w.spools[len(w.spools)-1]
	e.Type, e.Size = tree.Regular, int64(len(content))
	e.Body.Offset = int64(spool.Len())
	spool.WriteString(content)
	spool.Write(make([]byte, -len(content)&(tree.BlockSize-1)))
	w.add(e)
}

// sparse adds a file that has a block of data at each of the given blocks.
func (w *world) sparse(name string, size int64, blocks ...int64) {
	w.t.Helper()
	spool := w.spools[len(w.spools)-1]
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
	w.add(e)
}

func options() ext4.Options {
	return ext4.Options{
		Label: "root", UUID: [16]byte{1, 2, 3}, HashSeed: [16]byte{4, 5, 6},
		Created: tree.Time{Sec: 1_700_000_000}, Direct: -1,
	}
}

// write makes the disk and checks it with e2fsck and with the reader.
func (w *world) write(o ext4.Options) string {
	w.t.Helper()
	disk := filepath.Join(w.t.TempDir(), "disk.ext4")
	l, err := ext4.Plan(w.tree(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.writeTo(l, disk, w.readers(nil))
	checkDisk(w.t, disk)
	return disk
}

// readers are the spools but for the one that is nil.
func (w *world) readers(without *int) []io.ReaderAt {
	var out []io.ReaderAt
	for i, s := range w.spools {
		if without != nil && *without == i {
			out = append(out, nil)
			continue
		}
		out = append(out, bytes.NewReader(s.Bytes()))
	}
	return out
}

func (w *world) writeTo(l *ext4.Layout, disk string, spools []io.ReaderAt) {
	w.t.Helper()
	f, err := os.OpenFile(disk, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	last, sum := int64(-1), int64(0)
	err = l.Write(w.t.Context(), f, spools, func(done, total int64) {
		if done < last || done > total {
			w.t.Errorf("progress %d after %d of %d", done, last, total)
		}
		last, sum = done, total
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if last != sum {
		w.t.Errorf("progress ends at %d of %d", last, sum)
	}
	if info, err := f.Stat(); err != nil || info.Size() != l.Size() {
		w.t.Errorf("disk has %v bytes, want %d (%v)", info.Size(), l.Size(), err)
	}
}

func checkDisk(t testing.TB, disk string) {
	t.Helper()
	e2tool(t, 0, "e2fsck", "-fn", disk)
	problems, err := openDisk(t, disk).Check(t.Context())
	if err != nil || len(problems) > 0 {
		t.Fatalf("check: %v\n%s", err, strings.Join(problems, "\n"))
	}
}

func digestOf(t testing.TB, disk string) string {
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

func TestWriteEmptyTree(t *testing.T) {
	disk := newWorld(t).write(options())
	info, err := os.Stat(disk)
	if err != nil || info.Size() != ext4.MinSize {
		t.Errorf("size %v, want %d (%v)", info.Size(), ext4.MinSize, err)
	}
}
