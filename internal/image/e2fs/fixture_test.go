package e2fs_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/image/e2fs"
	"github.com/banger-vm/banger/internal/image/tree"
)

var created = tree.Time{Sec: 1700000000, Nsec: 123456789}

// treeWriter builds a tree from one layer and its spool.
type treeWriter struct {
	t     *testing.T
	m     *tree.Merger
	spool bytes.Buffer
}

func newTreeWriter(t *testing.T) *treeWriter {
	t.Helper()
	w := &treeWriter{t: t, m: tree.NewMerger(tree.Options{Created: created})}
	if err := w.m.NextLayer(); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *treeWriter) add(e tree.Entry) {
	w.t.Helper()
	if err := w.m.Add(&e); err != nil {
		w.t.Fatal(err)
	}
}

func (w *treeWriter) dir(name string) {
	w.add(tree.Entry{Name: name, Type: tree.Directory, Mode: 0o755})
}

func (w *treeWriter) file(name, data string) {
	w.add(w.body(tree.Entry{Name: name, Mode: 0o644}, data))
}

// body returns e as a regular file with the content data, without holes.
func (w *treeWriter) body(e tree.Entry, data string) tree.Entry {
	e.Type, e.Size = tree.Regular, int64(len(data))
	e.Body.Offset = int64(w.spool.Len())
	w.put(data)
	return e
}

func (w *treeWriter) put(data string) {
	w.spool.WriteString(data)
	if over := w.spool.Len() % tree.BlockSize; over > 0 {
		w.spool.Write(make([]byte, tree.BlockSize-over))
	}
}

func (w *treeWriter) spools() []io.ReaderAt { return []io.ReaderAt{bytes.NewReader(w.spool.Bytes())} }

// options returns the default options of the tests. When the test ends it
// reports an error unless the scratch folder is empty.
func options(t *testing.T) e2fs.Options {
	t.Helper()
	o := e2fs.Options{
		ScratchDir: t.TempDir(), Created: created, Label: "a label",
		UUID: [16]byte{1, 2, 3, 15: 4}, HashSeed: [16]byte{5, 15: 6},
	}
	t.Cleanup(func() {
		left, err := os.ReadDir(o.ScratchDir)
		if err != nil || len(left) > 0 {
			t.Errorf("scratch folder holds %v (%v)", left, err)
		}
	})
	return o
}

// build builds a disk and checks it with e2fsck.
func (w *treeWriter) build(tree *tree.Tree, o e2fs.Options) (string, e2fs.Result) {
	w.t.Helper()
	needTools(w.t, "mkfs.ext4", "debugfs", "e2fsck")
	disk := filepath.Join(w.t.TempDir(), "disk.ext4")
	res, err := e2fs.Build(w.t.Context(), tree, w.spools(), disk, o, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	fsck(w.t, disk)
	return disk, res
}

// buildError builds a disk and returns the error. The test fails if there is
// no error, or if the build leaves a disk.
func (w *treeWriter) buildError(ctx context.Context, o e2fs.Options) error {
	w.t.Helper()
	disk := filepath.Join(w.t.TempDir(), "disk.ext4")
	_, err := e2fs.Build(ctx, w.m.Tree(), w.spools(), disk, o, nil)
	if err == nil {
		w.t.Fatal("build succeeded")
	}
	if _, statErr := os.Lstat(disk); !errors.Is(statErr, os.ErrNotExist) {
		w.t.Errorf("the disk still exists (%v)", statErr)
	}
	return err
}

// tool returns the path of a program. It also searches the system folders,
// which the $PATH of a plain user lacks.
func tool(name string) (string, error) {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err == nil {
			break
		}
		path, err = exec.LookPath(filepath.Join(dir, name))
	}
	return path, err
}

// needTools skips the test if a program is not installed. In CI the test fails
// instead.
func needTools(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := tool(name); err != nil {
			skipUnlessCI(t, name+" is not installed")
		}
	}
}

// skipUnlessCI skips the test for a reason of the host. In CI the test fails
// instead.
func skipUnlessCI(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := tool(name)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func fsck(t *testing.T, disk string) { t.Helper(); run(t, "e2fsck", "-fn", disk) }

// mount mounts disk and returns the folder. Without root it skips the rest of
// the test, which CI runs as root too.
func mount(t *testing.T, disk string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("a loop mount needs root")
	}
	dir := t.TempDir()
	path, err := tool("mount")
	if err != nil {
		skipUnlessCI(t, "mount is not installed")
	}
	if out, err := exec.Command(path, "-o", "loop,ro", disk, dir).CombinedOutput(); err != nil {
		skipUnlessCI(t, "loop mount: "+string(out))
	}
	t.Cleanup(func() { run(t, "umount", dir) })
	return dir
}

func lstat(t *testing.T, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("lstat %s: %v", path, err)
	}
	return st
}

// xattrs returns all extended attributes of path that the kernel lists.
func xattrs(t *testing.T, path string) map[string]string {
	t.Helper()
	buf := make([]byte, 1<<16)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		t.Fatalf("listxattr %s: %v", path, err)
	}
	out := map[string]string{}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 1<<16)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			t.Fatalf("getxattr %s of %s: %v", name, path, err)
		}
		out[name] = string(value[:n])
	}
	return out
}
