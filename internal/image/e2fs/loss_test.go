package e2fs_test

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/image/e2fs"
	"github.com/banger-vm/banger/internal/image/tree"
)

// TestB2LostAttributesAreNamed checks that the disk has the attributes that
// debugfs can store, and that a warning names the others. It has attributes at
// the limits of the inode and of the block.
func TestB2LostAttributesAreNamed(t *testing.T) {
	// An entry of 16 bytes, a name of 4 bytes and the value fill the 88 bytes
	// of room in the inode, or the 4060 bytes in the block.
	inInode := tree.Xattr{Name: "user.aaaa", Value: strings.Repeat("i", 88-20)}
	inBlock := tree.Xattr{Name: "user.bbbb", Value: strings.Repeat("b", 4060-20)}
	larger := tree.Xattr{Name: "user.bbbb", Value: strings.Repeat("b", 4060-20+1)}
	one := tree.Xattr{Name: "user.c", Value: ""}
	type set = []tree.Xattr
	kept := map[string]set{
		"none": nil, "inode": {inInode}, "block": {inBlock}, "both": {inInode, inBlock}, "full": {inInode, inBlock},
		"larger": {inInode}, "unnamed": {one}, "acl": {one}, "name": {one},
	}
	lost := map[string]set{
		"full": {one}, "larger": {larger},
		"unnamed": {{Name: "user.", Value: "x"}},
		"acl": {
			{Name: "system.posix_acl_access", Value: "\x01\x00\x00\x00\x01\x00\x07\x00"},
			{Name: "system.posix_acl_default", Value: acl(1, 7, 64, 7)},
		},
		"name": {{Name: "user.a\nrm <2>", Value: "x"}},
	}
	w := newTreeWriter(t)
	for _, name := range []string{"none", "inode", "block", "both", "full", "larger", "unnamed", "acl", "name"} {
		all := append(append(set{}, kept[name]...), lost[name]...)
		w.add(tree.Entry{Name: name, Type: tree.Regular, Xattrs: all})
	}
	disk, res := w.build(w.m.Tree(), options(t))
	if len(res.Warnings) != 1 || !strings.HasPrefix(res.Warnings[0], "6 extended attributes") {
		t.Errorf("warnings are %q", res.Warnings)
	}
	for name, set := range lost {
		for _, x := range set {
			if text := fmt.Sprint(res.Warnings); !strings.Contains(text, name) || strings.Contains(text, "\n") ||
				!strings.Contains(text, strings.Split(x.Name, "\n")[0]) {
				t.Errorf("%s of %s is not in %s", x.Name, name, text)
			}
		}
	}
	dir := mount(t, disk)
	for name, set := range kept {
		want := map[string]string{}
		for _, x := range set {
			want[x.Name] = x.Value
		}
		if got := xattrs(t, filepath.Join(dir, name)); !maps.Equal(got, want) {
			t.Errorf("%s has %q, want %q", name, got, want)
		}
	}
	if st := lstat(t, filepath.Join(dir, "inode")); st.Blocks != 0 {
		t.Errorf("attributes that fit the inode take %d sectors", st.Blocks)
	}
}

func TestB2TimesOutsideOfExt4AreChangedAndCounted(t *testing.T) {
	const earliest, latest = -1 << 31, 3<<32 + 1<<31 - 1
	w := newTreeWriter(t)
	for i, sec := range []int64{earliest, earliest - 1, -1 << 62, latest, latest + 1, 1 << 62} {
		w.add(tree.Entry{Name: fmt.Sprint(i), Type: tree.Regular, Mtime: tree.Time{Sec: sec, Nsec: 9}})
	}
	disk, res := w.build(w.m.Tree(), options(t))
	if len(res.Warnings) != 1 || !strings.HasPrefix(res.Warnings[0], "4 modification times") || !strings.Contains(res.Warnings[0], `"1", "2", "4", "5"`) {
		t.Errorf("warnings are %q", res.Warnings)
	}
	dir := mount(t, disk)
	for i, want := range []tree.Time{{Sec: earliest, Nsec: 9}, {Sec: earliest}, {Sec: earliest}, {Sec: latest, Nsec: 9}, {Sec: latest}, {Sec: latest}} {
		st := lstat(t, filepath.Join(dir, fmt.Sprint(i)))
		if st.Mtim.Sec != want.Sec || st.Mtim.Nsec != int64(want.Nsec) {
			t.Errorf("time %d is %v, want %v", i, st.Mtim, want)
		}
	}
}

func TestLongWarningIsShortened(t *testing.T) {
	w := newTreeWriter(t)
	for i := range 1000 {
		w.add(tree.Entry{Name: fmt.Sprint("f", i), Type: tree.Fifo, Xattrs: []tree.Xattr{{Name: "user.a\nb"}}})
	}
	_, res := w.build(w.m.Tree(), options(t))
	if len(res.Warnings) != 1 || len(res.Warnings[0]) > 1000 || !strings.Contains(res.Warnings[0], "1000 extended") ||
		!strings.HasSuffix(res.Warnings[0], "and 980 more") {
		t.Errorf("warnings are %q", res.Warnings)
	}
}

func TestB2TreeThatExt4CannotStoreIsRefused(t *testing.T) {
	for name, fill := range map[string]func(w *treeWriter){
		"device number 4096:0":      func(w *treeWriter) { w.dev("d", tree.CharDevice, 4096, 0) },
		"device number 0:1048576":   func(w *treeWriter) { w.dev("d", tree.BlockDevice, 0, 1<<20) },
		"layer 7 of 1":              func(w *treeWriter) { w.otherSpool(7) },
		"spool: unexpected EOF":     func(w *treeWriter) { w.hole("f", 1<<20, tree.Run{Length: 4096}); w.spool.Truncate(100) },
		"runs of data do not lie":   func(w *treeWriter) { w.hole("f", 100, tree.Run{Length: 4096}) },
		"65001 hard links are more": func(w *treeWriter) { w.links(65001) },
	} {
		t.Run(name, func(t *testing.T) {
			needTools(t, "mkfs.ext4", "debugfs")
			w := newTreeWriter(t)
			fill(w)
			if err := w.buildError(t.Context(), options(t)); !strings.Contains(err.Error(), name) {
				t.Errorf("error is %v", err)
			}
		})
	}
	w := newTreeWriter(t)
	o := options(t)
	o.Label = "seventeen letters"
	if err := w.buildError(t.Context(), o); !strings.Contains(err.Error(), o.Label) {
		t.Errorf("error is %v", err)
	}
}

// otherSpool adds a file of a layer that has no spool.
func (w *treeWriter) otherSpool(layer int) {
	for range layer {
		if err := w.m.NextLayer(); err != nil {
			w.t.Fatal(err)
		}
	}
	w.file("f", "data")
}

func (w *treeWriter) links(n int) {
	w.file("f", "data")
	for i := 1; i < n; i++ {
		w.add(tree.Entry{Name: fmt.Sprint("d/", i), Type: tree.HardLink, Linkname: "f"})
	}
}

func TestSeveralSpoolsAndProgress(t *testing.T) {
	needTools(t, "mkfs.ext4", "debugfs", "e2fsck")
	a, b := strings.Repeat("a", 3*mib+5), strings.Repeat("b", 4096)
	m := tree.NewMerger(tree.Options{Created: created})
	for i, data := range []string{a, b} {
		e := tree.Entry{Name: fmt.Sprint("f", i), Type: tree.Regular, Size: int64(len(data))}
		if err := m.NextLayer(); err != nil {
			t.Fatal(err)
		}
		if err := m.Add(&e); err != nil {
			t.Fatal(err)
		}
	}
	tree, disk := m.Tree(), filepath.Join(t.TempDir(), "disk")
	spools := []io.ReaderAt{bytes.NewReader([]byte(a)), bytes.NewReader([]byte(b))}
	last, calls := int64(0), 0
	_, err := e2fs.Build(t.Context(), tree, spools, disk, options(t), func(done, total int64) {
		calls++
		if total != int64(2*len(a+b)) || done < last || done > total {
			t.Errorf("progress %d of %d after %d", done, total, last)
		}
		last = done
	})
	if err != nil {
		t.Fatal(err)
	}
	if last != int64(2*len(a+b)) || calls < 4 {
		t.Errorf("progress ended at %d after %d calls", last, calls)
	}
	fsck(t, disk)
	dir := mount(t, disk)
	for i, want := range []string{a, b} {
		if got, err := os.ReadFile(filepath.Join(dir, fmt.Sprint("f", i))); err != nil || string(got) != want {
			t.Errorf("f%d differs (%v)", i, err)
		}
	}
}
