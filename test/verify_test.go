//go:build e2e

package e2e

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestB2VerifyAcceptsBuiltDisks verifies unchanged disks of real images.
func TestB2VerifyAcceptsBuiltDisks(t *testing.T) {
	needNative(t)
	for _, image := range []string{"app:1", "torture:1", "torture:names"} {
		t.Run(image, func(t *testing.T) {
			box := newSandbox(t)
			disk := box.convert(t, "native", reference(image))
			box.must(t, "verify", "--plain-http", reference(image), disk)
		})
	}
}

// TestB2VerifyReportsOneChange mounts a disk, changes one thing, and checks that verify names its path.
func TestB2VerifyReportsOneChange(t *testing.T) {
	needNative(t)
	needRoot(t)
	for _, row := range []struct {
		name, path string
		change     func(path string) error
	}{
		{"content", "kinds/regular", func(p string) error { return overwrite(p, "Regular\n") }},
		{"mode", "modes/file-4755", func(p string) error { return unix.Chmod(p, 0o755) }},
		{"owner", "owners/dir-65536", func(p string) error { return os.Lchown(p, 0, 0) }},
		{"xattr", "xattrs/cap-v2", func(p string) error { return unix.Removexattr(p, "security.capability") }},
		{"name", "kinds/empty-dir", os.Remove},
		{"target", "symlinks/dangling", func(p string) error {
			if err := os.Remove(p); err != nil {
				return err
			}
			return os.Symlink("no/there", p)
		}},
		{"an added file", "kinds/added", func(p string) error { return os.WriteFile(p, nil, 0o644) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			box := newSandbox(t)
			disk := box.convert(t, "native", reference("torture:1"))
			dir := mountDisk(t, disk, "loop")
			if err := row.change(dir + "/" + row.path); err != nil {
				t.Fatal(err)
			}
			unmount(t, dir)
			got := box.run(t, "verify", "--plain-http", reference("torture:1"), disk)
			if got.code != 1 || !strings.Contains(got.stdout+got.stderr, row.path) {
				t.Errorf("exit code %d, want 1 and a line on %s\n%s%s", got.code, row.path, got.stdout, got.stderr)
			}
		})
	}
}

// overwrite writes body at the start of the file without truncating it.
func overwrite(path, body string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(body)
	return err
}
