//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/test/treediff"
)

// These tests let the kernel and e2fsprogs work on disks of the native writer, as root. e2fsck alone does not find the
// faults that they find.

// nativeDisk converts an image with the native builder in a new sandbox and returns the path of the disk.
func nativeDisk(t *testing.T, image string, flags ...string) string {
	t.Helper()
	needNative(t)
	needRoot(t)
	return newSandbox(t).convert(t, "native", reference(image), flags...)
}

// TestB1BackupSuperblocks clears the primary superblock and restores the disk from a backup.
func TestB1BackupSuperblocks(t *testing.T) {
	for _, image := range []string{"app:1", "torture:1", "torture:names"} {
		t.Run(image, func(t *testing.T) {
			// The first backup lies in the second block group, which the smallest disk does not have.
			disk := nativeDisk(t, image, "--size=1G")
			expectSound(t, disk)
			want := diskTree(t, disk)
			f, err := os.OpenFile(disk, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt(make([]byte, 1024), 1024); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.CommandContext(t.Context(), "dumpe2fs", "-h", disk).CombinedOutput(); err == nil {
				t.Fatalf("the primary superblock is still there\n%s", out)
			}
			// 1: errors corrected. The bitmaps are not clean by the backup's descriptors, and neither are those of a
			// disk of mkfs.ext4. The content must be complete afterwards.
			if out, err := exec.CommandContext(t.Context(), "e2fsck", "-fy", "-b", "32768", disk).CombinedOutput(); exitCode(err) > 1 {
				t.Fatalf("e2fsck -b 32768: %v\n%s", err, out)
			}
			expectSound(t, disk)
			for _, d := range treediff.Diff(want, diskTree(t, disk)) {
				t.Error(d)
			}
		})
	}
}

// TestB1Resize grows a disk offline from 1 to 3 to 20 GiB, which uses the reserved descriptor blocks.
func TestB1Resize(t *testing.T) {
	need(t, "resize2fs")
	for _, image := range []string{"torture:1", "app:1"} {
		t.Run(image, func(t *testing.T) {
			disk := nativeDisk(t, image, "--size=1G")
			want := diskTree(t, disk)
			for _, size := range []string{"3G", "20G"} {
				tool(t, "e2fsck", "-fp", disk)
				tool(t, "resize2fs", disk, size)
				expectSound(t, disk)
			}
			if got := fileSize(t, disk); got != 20<<30 {
				t.Errorf("the disk has %d bytes after growing to 20 GiB", got)
			}
			for _, d := range treediff.Diff(want, diskTree(t, disk)) {
				t.Error(d)
			}
		})
	}
}

// TestB1Optimise rebuilds every directory with e2fsck. The mounted tree must stay the same.
func TestB1Optimise(t *testing.T) {
	disk := nativeDisk(t, "torture:1")
	want := diskTree(t, disk)
	// 1: errors corrected. e2fsck counts a rebuilt directory as one.
	if out, err := exec.CommandContext(t.Context(), "e2fsck", "-fyD", disk).CombinedOutput(); exitCode(err) > 1 {
		t.Fatalf("e2fsck -fyD: %v\n%s", err, out)
	}
	expectSound(t, disk)
	for _, d := range treediff.Diff(want, diskTree(t, disk)) {
		t.Error(d)
	}
}

// exitCode returns the exit code of a command, or 255 if it did not run or a signal ended it.
func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode()
	}
	return 255
}

// TestB1WriteLoad writes to a mounted disk: copies, deletions, preallocation, many files in one directory. e2fsck must
// find no fault afterwards.
func TestB1WriteLoad(t *testing.T) {
	disk := nativeDisk(t, "app:1", "--size=+1G")
	dir := mountDisk(t, disk, "loop")
	tool(t, "cp", "-a", filepath.Join(dir, "usr"), filepath.Join(dir, "copy"))
	want, got := scan(t, filepath.Join(dir, "usr")), scan(t, filepath.Join(dir, "copy"))
	for _, d := range treediff.Diff(want, got) {
		t.Error(d)
	}
	for _, gone := range []string{"usr/share", "usr/lib/gcc", "etc"} {
		if err := os.RemoveAll(filepath.Join(dir, gone)); err != nil {
			t.Error(err)
		}
	}
	allocate(t, filepath.Join(dir, "allocated"), 200<<20)
	crowd := filepath.Join(dir, "usr/bin")
	for i := range 10_000 {
		if err := os.WriteFile(filepath.Join(crowd, fmt.Sprintf("one-of-ten-thousand-%05d", i)), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i := 0; i < 10_000; i += 2 {
		if err := os.Remove(filepath.Join(crowd, fmt.Sprintf("one-of-ten-thousand-%05d", i))); err != nil {
			t.Fatal(err)
		}
	}
	unmount(t, dir)
	expectSound(t, disk)
}

// allocate creates a file with preallocated blocks, writes to its middle and punches a hole.
func allocate(t *testing.T, name string, size int64) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil {
		t.Errorf("fallocate: %v", err)
	}
	if _, err := f.WriteAt([]byte("middle"), size/2); err != nil {
		t.Error(err)
	}
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, size/4, size/8); err != nil {
		t.Errorf("punch hole: %v", err)
	}
}

// TestB1LookupOfEveryName looks up every name of umoci's tree on a fresh mount. The dentry cache is cold, so each lookup
// uses the index of the directory.
func TestB1LookupOfEveryName(t *testing.T) {
	for _, image := range []string{"torture:1", "torture:names", "app:1"} {
		t.Run(image, func(t *testing.T) {
			want := umociTree(t, image)
			dir := mountDisk(t, nativeDisk(t, image), "loop,ro,noload")
			for path := range want {
				var st unix.Stat_t
				if err := unix.Lstat(filepath.Join(dir, path), &st); err != nil {
					t.Errorf("lstat %q: %v", path, err)
				}
			}
			var st unix.Stat_t
			if err := unix.Lstat(filepath.Join(dir, "crowd/nobody-has-this-name"), &st); err == nil {
				t.Error("a name that does not exist is found")
			}
		})
	}
}

// TestB1ZerosAreHoles checks that exactly the whole blocks of zeros are holes.
func TestB1ZerosAreHoles(t *testing.T) {
	const block = 4096
	dir := mountDisk(t, nativeDisk(t, "torture:1"), "loop,ro,noload")
	names, err := filepath.Glob(filepath.Join(dir, "bodies/*"))
	if err != nil || len(names) < 15 {
		t.Fatalf("%d files, %v", len(names), err)
	}
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		for at := int64(0); at < int64(len(body)); at += block {
			part := body[at:min(at+block, int64(len(body)))]
			zero := strings.Trim(string(part), "\x00") == ""
			if hole := isHole(t, f, at); hole != zero {
				t.Errorf("%s at %d: hole %v, zeros %v", filepath.Base(name), at, hole, zero)
				break
			}
		}
		f.Close()
	}
}

func isHole(t *testing.T, f *os.File, at int64) bool {
	t.Helper()
	next, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
	if err == unix.ENXIO {
		return true
	}
	if err != nil {
		t.Fatalf("seek data: %v", err)
	}
	return next != at
}

// TestB3SameBytes compares the bytes of disks that were built with different numbers of processors, from a cold and a
// warm cache, on different file systems, and by different users.
func TestB3SameBytes(t *testing.T) {
	needNative(t)
	for _, image := range []string{"torture:1", "app:1"} {
		t.Run(image, func(t *testing.T) {
			box := newSandbox(t)
			want := digestOf(t, box.convert(t, "native", reference(image)))
			same := func(name string, box sandbox, env ...string) {
				disk := box.path("out", "again")
				cmd := box.command(t.Context(), "convert", "--plain-http", "--force", reference(image), disk)
				cmd.Env = append(cmd.Env, env...)
				if got := finish(t, cmd, nil); got.code != 0 {
					t.Fatalf("%s: exit code %d\n%s", name, got.code, got.stderr)
				}
				if digestOf(t, disk) != want {
					t.Errorf("%s: other bytes", name)
				}
			}
			same("again, warm", box)
			same("one processor, warm", box, "GOMAXPROCS=1")
			same("one processor, cold", newSandbox(t), "GOMAXPROCS=1")
			same("eight processors, cold", newSandbox(t), "GOMAXPROCS=8")
			same("a plain user", newUnprivilegedSandbox(t))
			for _, kind := range []string{"btrfs", "xfs"} {
				box := sandboxOn(t, kind, 4<<30)
				same(kind+", cold", box)
				same(kind+", warm", box)
			}
		})
	}
}

// sandboxOn returns a sandbox on a new file system of a kind that shares extents.
func sandboxOn(t *testing.T, kind string, size int64) sandbox {
	t.Helper()
	needRoot(t)
	need(t, "mkfs."+kind)
	device := filepath.Join(t.TempDir(), kind)
	f, err := os.Create(device)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	tool(t, "mkfs."+kind, "-q", device)
	return sandboxIn(t, mountDisk(t, device, "loop"), uint32(os.Geteuid()))
}
