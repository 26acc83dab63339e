package e2fs_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/image/e2fs"
	"github.com/banger-vm/banger/internal/image/tree"
)

const mib = 1 << 20

// superblock returns a number of the superblock from the output of dumpe2fs.
func superblock(t *testing.T, disk, field string) int64 {
	t.Helper()
	out := run(t, "dumpe2fs", "-h", disk)
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(field) + `:\s+(\d+)`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("dumpe2fs shows no %q in\n%s", field, out)
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestB1SparseAndAtLeast64MiB(t *testing.T) {
	w := newTreeWriter(t)
	w.hole("hole", 1<<40)
	disk, res := w.build(w.m.Tree(), options(t))
	st := lstat(t, disk)
	if res.Size != 64*mib || st.Size != res.Size {
		t.Errorf("size is %d, Result has %d", st.Size, res.Size)
	}
	const sector = 512
	if used := st.Blocks * sector; used > 2*mib {
		t.Errorf("an empty disk takes %d bytes of the host", used)
	}
}

func TestB1SizedFromBlocksWithHeadroom(t *testing.T) {
	for _, headroom := range []int64{0, 200 * mib} {
		w := newTreeWriter(t)
		w.file("f", strings.Repeat("content!", 10*mib))
		o := options(t)
		o.Headroom = headroom
		disk, _ := w.build(w.m.Tree(), o)
		least := max(headroom, 32*mib)
		if free := superblock(t, disk, "Free blocks") * 4096; free < least || free > least+70*mib {
			t.Errorf("headroom %d leaves %d bytes free, want %d", headroom, free, least)
		}
	}
}

// fifos adds n inodes that take no space on the host.
func (w *treeWriter) fifos(n int) {
	for i := range n {
		w.add(tree.Entry{Name: fmt.Sprintf("d%d/f%d", i/500, i), Type: tree.Fifo})
	}
}

func TestB1SizedFromInodes(t *testing.T) {
	w := newTreeWriter(t)
	const files = 34000 // a group has at most 32768 inodes
	w.fifos(files)
	disk, _ := w.build(w.m.Tree(), options(t))
	if free := superblock(t, disk, "Free inodes"); free < files/4 {
		t.Errorf("%d inodes are free", free)
	}
}

func TestB1SizeErrorHasNeededSize(t *testing.T) {
	trees := map[string]func(w *treeWriter){
		"below the minimum": func(*treeWriter) {},
		"blocks":            func(w *treeWriter) { w.file("f", strings.Repeat("content!", 10*mib)) },
		"inodes": func(w *treeWriter) {
			w.fifos(9000)
			w.file("f", strings.Repeat("content!", 7*mib))
		},
		"attributes, links and names": func(w *treeWriter) {
			w.file("f", strings.Repeat("content!", 57*mib/8))
			for i := range 600 {
				name := fmt.Sprintf("d%d/%s%d", i%3, strings.Repeat("n", 240), i)
				w.add(tree.Entry{Name: name, Type: tree.Symlink, Linkname: strings.Repeat("t", 100), Xattrs: []tree.Xattr{
					{Name: "trusted.t", Value: strings.Repeat("v", 99)},
				}})
			}
		},
		"files of many extents": func(w *treeWriter) {
			w.file("data", strings.Repeat("content!", 40*mib/8))
			var runs []tree.Run
			for i := range int64(6000) {
				runs = append(runs, tree.Run{Offset: 8192 * i, Length: 4096})
			}
			w.hole("f", 8192*6000, runs...)
		},
	}
	for name, fill := range trees {
		t.Run(name, func(t *testing.T) {
			w := newTreeWriter(t)
			fill(w)
			tree := w.m.Tree()
			disk := filepath.Join(t.TempDir(), "disk")
			o := options(t)
			o.Size = 4096
			_, err := e2fs.Build(t.Context(), tree, w.spools(), disk, o, nil)
			small, ok := errors.AsType[*e2fs.SizeError](err)
			if !ok || small.Have != o.Size || !strings.Contains(err.Error(), fmt.Sprint(small.Need)) {
				t.Fatalf("error is %v", err)
			}
			if _, err := os.Lstat(disk); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("disk was written (%v)", err)
			}
			o.Size = small.Need - mib
			_, err = e2fs.Build(t.Context(), tree, w.spools(), disk, o, nil)
			if again, ok := errors.AsType[*e2fs.SizeError](err); !ok || again.Need != small.Need {
				t.Errorf("with 1 MiB less than needed the error is %v", err)
			}
			o.Size = small.Need
			disk, res := w.build(tree, o)
			if st := lstat(t, disk); st.Size != small.Need || res.Size != small.Need {
				t.Errorf("size is %d, Result has %d, want %d", st.Size, res.Size, small.Need)
			}
		})
	}
}

func TestB1OddSizeIsKept(t *testing.T) {
	w := newTreeWriter(t)
	o := options(t)
	o.Size = 128*mib + 64*1024 + 513 // mkfs.ext4 drops the last group, because it is too small
	disk, _ := w.build(w.m.Tree(), o)
	if st := lstat(t, disk); st.Size != o.Size {
		t.Errorf("size is %d, want %d", st.Size, o.Size)
	}
}

func TestB1FullHostLeavesNoFiles(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a small file system needs root")
	}
	needTools(t, "mkfs.ext4", "debugfs", "mount")
	small := t.TempDir()
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=6m"); err != nil {
		skipUnlessCI(t, "mount of a tmpfs: "+err.Error())
	}
	t.Cleanup(func() {
		if err := unix.Unmount(small, 0); err != nil {
			t.Error(err)
		}
	})
	w := newTreeWriter(t)
	w.file("f", strings.Repeat("content!", mib))
	tree := w.m.Tree()
	for name, dirs := range map[string][2]string{"staging": {small, t.TempDir()}, "disk": {t.TempDir(), small}} {
		o := options(t)
		o.ScratchDir = dirs[0]
		_, err := e2fs.Build(t.Context(), tree, w.spools(), filepath.Join(dirs[1], "disk"), o, nil)
		if !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%s: error is %v", name, err)
		}
		for _, dir := range dirs {
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("%s: %v is left (%v)", name, left, err)
			}
		}
	}
}
