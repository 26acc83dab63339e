//go:build e2e

package e2e

import (
	"os"
	"path"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/test/treediff"
)

// mountDisk mounts the disk until the test ends and returns the mount point.
func mountDisk(t *testing.T, disk, options string) string {
	t.Helper()
	needRoot(t)
	need(t, "mount", "losetup")
	dir := t.TempDir()
	tool(t, "mount", "-o", options, disk, dir)
	t.Cleanup(func() { unmount(t, dir) })
	return dir
}

// unmount unmounts dir. It detaches a mount that is still in use, and reports it, because a test must not leave a mount
// behind.
func unmount(t *testing.T, dir string) {
	t.Helper()
	err := unix.Unmount(dir, 0)
	if err == unix.EINVAL { // it is not mounted
		return
	}
	if err != nil {
		t.Errorf("unmount %s: %v", dir, err)
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("detach %s: %v", dir, err)
		}
	}
}

// diskTree returns the tree of the mounted disk without lost+found, which every ext4 has.
func diskTree(t *testing.T, disk string) treediff.Tree {
	t.Helper()
	dir := mountDisk(t, disk, "loop,ro,noload")
	tree := scan(t, dir)
	if tree["lost+found"]["type"] != "directory" {
		t.Errorf("the disk has no lost+found")
	}
	delete(tree, "lost+found")
	unmount(t, dir)
	return tree
}

func scan(t *testing.T, dir string) treediff.Tree {
	t.Helper()
	tree, err := treediff.Scan(dir)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// umociTrees caches umoci's tree of each image. Several tests need it, and it takes seconds.
var umociTrees struct {
	sync.Mutex
	of map[string]treediff.Tree
}

// umociTree returns the tree that umoci unpacks as root from an image that skopeo has fetched. It uses no code of banger.
func umociTree(t *testing.T, image string) treediff.Tree {
	t.Helper()
	needRoot(t)
	need(t, "skopeo", "umoci")
	umociTrees.Lock()
	defer umociTrees.Unlock()
	if tree, ok := umociTrees.of[image]; ok {
		return tree
	}
	dir := t.TempDir()
	copyImage(t, image, "oci:"+filepath.Join(dir, "layout")+":image")
	tool(t, "umoci", "unpack", "--image", filepath.Join(dir, "layout")+":image", filepath.Join(dir, "bundle"))
	tree := scan(t, filepath.Join(dir, "bundle/rootfs"))
	if umociTrees.of == nil {
		umociTrees.of = map[string]treediff.Tree{}
	}
	umociTrees.of[image] = tree
	return tree
}

// copyImage copies an image from the suite's registry to a destination of skopeo.
func copyImage(t *testing.T, image, destination string) {
	t.Helper()
	need(t, "skopeo")
	tool(t, "skopeo", "copy", "-q", "--insecure-policy", "--src-tls-verify=false", "docker://"+reference(image), destination)
}

// convert converts a source to a disk in the sandbox and returns its path.
func (box sandbox) convert(t *testing.T, builder, source string, flags ...string) string {
	t.Helper()
	disk := filepath.Join(box.path("out"), "disk-"+builder+".ext4")
	args := append([]string{"convert", "--plain-http", "--force", "--builder=" + builder}, flags...)
	box.must(t, append(args, source, disk)...)
	return disk
}

// expectSound checks the structure of the disk with e2fsck, which changes nothing.
func expectSound(t *testing.T, disk string) {
	t.Helper()
	need(t, "e2fsck")
	tool(t, "e2fsck", "-fn", disk)
}

// exception is a difference between a disk and the oracle's tree that is right, and why. Path is a
// pattern of path.Match; an empty builder or image means any.
type exception struct {
	builder, image, path, field, reason string
}

func (e exception) covers(builder, image string, d treediff.Difference) bool {
	same := func(pattern, value string) bool { return pattern == "" || pattern == value }
	matches, err := path.Match(e.path, d.Path)
	return err == nil && matches && same(e.builder, builder) && same(e.image, image) && e.field == d.Field
}

// expectSameTree checks that the trees have no differences besides the exceptions.
func expectSameTree(t *testing.T, builder, image string, want, got treediff.Tree) {
	t.Helper()
	const shown = 40
	faults := 0
	for _, d := range treediff.Diff(want, got) {
		excused := false
		for _, e := range exceptions {
			excused = excused || e.covers(builder, image, d)
		}
		if excused {
			continue
		}
		if faults++; faults <= shown {
			t.Error(d)
		}
	}
	if faults > shown {
		t.Errorf("and %d differences more", faults-shown)
	}
}

func freeBytes(t *testing.T, dir string) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bavail) * int64(st.Bsize)
}

func fileSize(t *testing.T, name string) int64 {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}
