// Package ext4test makes and checks ext4 disks for the tests of the packages
// beside it: disks of e2fsprogs and disks of package write.
package ext4test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// StockDisk makes a disk of a folder with mke2fs and returns its path. The size and
// the flags are those of mkfs.ext4(8).
func StockDisk(t testing.TB, folder, size string, flags ...string) string {
	t.Helper()
	disk := filepath.Join(t.TempDir(), "disk.ext4")
	E2Tool(t, 0, "mkfs.ext4", append(append([]string{"-q", "-F", "-d", folder}, flags...), disk, size)...)
	return disk
}

// E2Tool runs a program of e2fsprogs and returns its output. It looks in the sbin
// folders, too, which an unprivileged user does not have in $PATH. The program
// may exit with a code of at most most. If there is no such program, the test is
// skipped, or fails in CI.
func E2Tool(t testing.TB, most int, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err == nil {
			break
		}
		path, err = exec.LookPath(filepath.Join(dir, name))
	}
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() <= most {
		err = nil
	}
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// CrowdName returns the i-th of many names. They are so long that a few hundred of
// them make a hash tree of two levels in blocks of 1 KiB.
func CrowdName(i int) string {
	return fmt.Sprintf("one of a crowd \xff %06d%s", i, strings.Repeat(" and so on", 18))
}

// SourceFolder makes a folder with all that an unprivileged user can make, and
// with a directory "crowd" of so many files. It returns its path.
func SourceFolder(t testing.TB, crowd int) string {
	t.Helper()
	dir := t.TempDir()
	try := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	try(os.MkdirAll(at("deep/er/still"), 0o700))
	try(os.MkdirAll(at("crowd"), 0o755))
	for i := range crowd {
		try(os.WriteFile(at("crowd/"+CrowdName(i)), nil, 0o600))
	}
	try(os.WriteFile(at("empty"), nil, 0o4755))
	try(os.WriteFile(at("small"), []byte("content\n"), 0o644))
	try(os.WriteFile(at("large"), bytes.Repeat([]byte("0123456789abcde\n"), 1<<16), 0o644))
	sparse, err := os.Create(at("sparse"))
	try(err)
	for i := range int64(400) { // more extents than fit into an inode and one block
		_, err := sparse.WriteAt([]byte("data"), i*3*4096)
		try(err)
	}
	try(sparse.Truncate(5 << 20))
	try(sparse.Close())
	try(os.Symlink("small", at("short")))
	try(os.Symlink(strings.Repeat("long/", 20), at("long")))
	try(os.Symlink(strings.Repeat("x", 59), at("fifty-nine")))
	try(os.Symlink(strings.Repeat("x", 60), at("sixty")))
	try(unix.Mkfifo(at("fifo"), 0o620))
	try(os.Link(at("small"), at("deep/second name")))
	try(os.Chtimes(at("small"), time.Unix(-5, 0), time.Unix(1<<31-7, 0)))
	for i := range 6 {
		// The host's file system may have no attributes.
		err := unix.Setxattr(at("large"), fmt.Sprintf("user.number%d", i), bytes.Repeat([]byte{byte(i)}, 40*i), 0)
		if err != nil && !errors.Is(err, unix.ENOTSUP) {
			try(err)
		}
	}
	return dir
}
