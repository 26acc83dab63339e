package e2fs_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/image/e2fs"
	"github.com/banger-vm/banger/internal/image/tree"
)

// Environment variables of the test binary that buildAsNobody runs.
const (
	envDisk    = "E2FS_TEST_DISK"
	envScratch = "E2FS_TEST_SCRATCH"
)

// plainOptions returns the options that both users build with.
func plainOptions(scratch string) e2fs.Options {
	return e2fs.Options{ScratchDir: scratch, Created: created, UUID: [16]byte{1}, HashSeed: [16]byte{2}}
}

// TestB4PlainUserMakesTheSameDisk builds a disk as root and, in a second
// process, as a plain user with a restrictive umask. The disks must be
// equal byte for byte, with files of mode 0000 and devices.
func TestB4PlainUserMakesTheSameDisk(t *testing.T) {
	w := everything(t)
	tree := w.m.Tree()
	if disk := os.Getenv(envDisk); disk != "" {
		unix.Umask(0o177)
		if _, err := e2fs.Build(t.Context(), tree, w.spools(), disk, plainOptions(os.Getenv(envScratch)), nil); err != nil {
			t.Fatal(err)
		}
		return
	}
	needTools(t, "mkfs.ext4", "debugfs", "e2fsck")
	if os.Getuid() != 0 {
		t.Skip("a second user needs root")
	}
	asRoot := filepath.Join(t.TempDir(), "disk")
	if _, err := e2fs.Build(t.Context(), tree, w.spools(), asRoot, plainOptions(t.TempDir()), nil); err != nil {
		t.Fatal(err)
	}
	asUser := buildAsNobody(t)
	fsck(t, asUser)
	sameFile(t, asRoot, asUser)
	compare(t, tree, w.spools(), mount(t, asUser))
}

// buildAsNobody runs TestB4PlainUserMakesTheSameDisk in a process of user 65534
// and returns the disk that it builds.
func buildAsNobody(t *testing.T) string {
	t.Helper()
	const nobody = 65534
	dir := t.TempDir()
	program := filepath.Join(dir, "test")
	copyFile(t, program, "/proc/self/exe")
	for _, path := range []string{filepath.Dir(dir), dir, program} {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	own := filepath.Join(dir, "own")
	scratch := filepath.Join(own, "scratch")
	for _, path := range []string{own, scratch} {
		if err := errors.Join(os.Mkdir(path, 0o700), os.Chown(path, nobody, nobody)); err != nil {
			t.Fatal(err)
		}
	}
	disk := filepath.Join(own, "disk")
	cmd := exec.Command(program, "-test.run", "^TestB4PlainUserMakesTheSameDisk$")
	cmd.Dir = own
	cmd.Env = []string{envDisk + "=" + disk, envScratch + "=" + scratch, "PATH=/usr/bin:/bin", "HOME=" + own}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("as nobody: %v\n%s", err, out)
	}
	if left, err := os.ReadDir(scratch); err != nil || len(left) > 0 {
		t.Errorf("scratch folder holds %v (%v)", left, err)
	}
	return disk
}

func copyFile(t *testing.T, to, from string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// sameFile compares two disks piece by piece, because they may not fit in
// memory.
func sameFile(t *testing.T, a, b string) {
	t.Helper()
	fa, err := os.Open(a)
	if err != nil {
		t.Fatal(err)
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		t.Fatal(err)
	}
	defer fb.Close()
	ba, bb := make([]byte, mib), make([]byte, mib)
	for off := int64(0); ; off += mib {
		na, errA := fa.ReadAt(ba, off)
		nb, errB := fb.ReadAt(bb, off)
		if !bytes.Equal(ba[:na], bb[:nb]) {
			i := 0
			for ba[i] == bb[i] {
				i++
			}
			t.Fatalf("the disks differ at byte %d: %x and %x", off+int64(i), ba[i:i+256], bb[i:i+256])
		}
		if errA != nil || errB != nil {
			if !errors.Is(errA, io.EOF) || !errors.Is(errB, io.EOF) || off < 64*mib {
				t.Fatalf("reading at %d: %v, %v", off, errA, errB)
			}
			return
		}
	}
}

// TestB4DiskDoesNotDependOnHost builds a disk in a plain environment and in one
// with a umask, default ACLs, a mke2fs.conf, and folders whose names are syntax
// for the programs. The disks must be equal.
func TestB4DiskDoesNotDependOnHost(t *testing.T) {
	needTools(t, "mkfs.ext4", "debugfs", "e2fsck")
	w := everything(t)
	tree := w.m.Tree()
	plain := filepath.Join(t.TempDir(), "disk")
	if _, err := e2fs.Build(t.Context(), tree, w.spools(), plain, plainOptions(t.TempDir()), nil); err != nil {
		t.Fatal(err)
	}

	odd := filepath.Join(t.TempDir(), "a \"b\"\nset?offset=4096 $(id) 'c'\\")
	scratch, disks := filepath.Join(odd, "scratch"), filepath.Join(odd, "-w")
	if err := errors.Join(os.MkdirAll(scratch, 0o700), os.Mkdir(disks, 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(scratch, "system.posix_acl_default", []byte(acl(1, 7, 2, 7, 4, 7, 16, 7, 32, 7)), 0); err != nil {
		t.Logf("without default ACLs: %v", err)
	}
	config := filepath.Join(t.TempDir(), "mke2fs.conf")
	if err := os.WriteFile(config, []byte("[defaults]\n\tblocksize = 1024\n\tbase_features = sparse_super\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("MKE2FS_CONFIG", config)
	t.Setenv("TZ", "Asia/Kathmandu")
	t.Setenv("E2FSPROGS_FAKE_TIME", "12345")
	t.Setenv("DEBUGFS_PAGER", "/bin/false")
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	disk := filepath.Join(disks, "disk?offset=1024")
	if _, err := e2fs.Build(t.Context(), tree, w.spools(), disk, plainOptions(scratch), nil); err != nil {
		t.Fatal(err)
	}
	sameFile(t, plain, disk)
}

// TestF11HostIsUntouched builds a tree with links to a folder of the host and
// with the names of the files in the workspace. The folder must not change.
func TestF11HostIsUntouched(t *testing.T) {
	probe := t.TempDir()
	if err := os.WriteFile(filepath.Join(probe, "file"), []byte("untouched"), 0o604); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, probe)
	w := newTreeWriter(t)
	deep := "d/" + strings.Repeat("e/", 200)
	w.add(tree.Entry{Name: "a", Type: tree.Symlink, Mode: 0o777, UID: 9, Linkname: probe, Mtime: created})
	w.add(tree.Entry{Name: "b", Type: tree.Symlink, Mode: 0o777, UID: 9, Linkname: probe + "/file", Mtime: created})
	w.add(tree.Entry{Name: deep + "b", Type: tree.HardLink, Linkname: "b"})
	w.add(tree.Entry{Name: "new", Type: tree.Symlink, Linkname: probe + "/made"})
	w.file("disk", "the name that the disk has in the workspace")
	w.file(deep+"stage/script", "other names of the workspace")
	w.file("values/0", "0")
	w.file("mke2fs.conf", "[defaults]")
	tree := w.m.Tree()
	disk, _ := w.build(tree, options(t))
	if after := snapshot(t, probe); after != before {
		t.Errorf("the probe is\n%s, was\n%s", after, before)
	}
	compare(t, tree, w.spools(), mount(t, disk))
}

// snapshot describes the files in a folder, with their times of change.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st := lstat(t, path)
		st.Atim = unix.Timespec{} // this walk changes it
		b.WriteString(path + " " + describe(st) + "\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestExistingFileIsNotOverwritten(t *testing.T) {
	needTools(t, "mkfs.ext4", "debugfs")
	dir := t.TempDir()
	full, empty := filepath.Join(dir, "full"), filepath.Join(dir, "empty")
	link, dangling := filepath.Join(dir, "link"), filepath.Join(dir, "dangling")
	if err := errors.Join(
		os.WriteFile(full, []byte("precious"), 0o600), os.WriteFile(empty, nil, 0o600),
		os.Symlink(empty, link), os.Symlink(filepath.Join(dir, "made"), dangling),
	); err != nil {
		t.Fatal(err)
	}
	w := smallTree(t)
	tree := w.m.Tree()
	before := snapshot(t, dir)
	for _, disk := range []string{full, link, dangling, dir} {
		if _, err := e2fs.Build(t.Context(), tree, w.spools(), disk, options(t), nil); err == nil {
			t.Errorf("Build accepted %s as a disk", disk)
		}
	}
	if after := snapshot(t, dir); after != before {
		t.Errorf("the folder is\n%s, was\n%s", after, before)
	}
	if _, err := e2fs.Build(t.Context(), tree, w.spools(), empty, options(t), nil); err != nil {
		t.Error(err)
	}
}
