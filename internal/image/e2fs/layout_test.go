package e2fs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestB1LayoutMatchesMkfs compares layout with the file systems that mkfs.ext4
// makes for the same sizes and numbers of inodes.
func TestB1LayoutMatchesMkfs(t *testing.T) {
	tools, err := findTools("")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	const mib = 1 << 20
	for _, c := range []struct{ size, inodes int64 }{
		{64 * mib, 1}, {64 * mib, 32768}, {100*mib + 1, 7777}, {128 * mib, 8192}, {129 * mib, 8192},
		{160 * mib, 50000}, {192 * mib, 20000}, {1023 * mib, 65536}, {1024 * mib, 65536}, {1025 * mib, 100},
		{2 << 30, 1 << 17}, {3<<30 + 5*mib, 300000}, {16 << 30, 1 << 20}, {20<<30 + 17*mib, 1 << 20}, {3 << 40, 3 << 20},
	} {
		g := layout(c.size, c.inodes)
		work, err := newWorkspace(t.TempDir(), filepath.Join(t.TempDir(), "disk"))
		if err != nil {
			t.Fatal(err)
		}
		disk := filepath.Join(work.path, diskName)
		if disk, err = os.Readlink(disk); err != nil {
			t.Fatal(err)
		}
		if err := createDisk(disk, g.size); err != nil {
			t.Fatal(err)
		}
		b := builder{tools: tools, geo: g, work: work}
		if err := b.makeFS(t.Context()); err != nil {
			t.Errorf("%d bytes, %d inodes: %v", c.size, c.inodes, err)
			continue
		}
		const own = 1 + lostFoundSize + 1 // root, lost+found, resize inode
		want := fmt.Sprintf("blocks %d free %d inodes %d journal %d", g.blocks, g.free-own, g.inodes, g.journal)
		if got := dump(t, tools, disk); got != want {
			t.Errorf("%d bytes, %d inodes: mkfs.ext4 made %s, expected %s", c.size, c.inodes, got, want)
		}
		if err := work.remove(); err != nil {
			t.Error(err)
		}
		if err := os.Remove(disk); err != nil {
			t.Error(err)
		}
	}
}

func dump(t *testing.T, tools tools, disk string) string {
	t.Helper()
	out, err := exec.Command(filepath.Join(filepath.Dir(tools.debugfs), "dumpe2fs"), "-h", disk).Output()
	if err != nil {
		t.Fatal(err)
	}
	field := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if key, value, ok := strings.Cut(line, ":"); ok {
			field[key] = strings.TrimSpace(value)
		}
	}
	return fmt.Sprintf("blocks %s free %s inodes %s journal %s",
		field["Block count"], field["Free blocks"], field["Inode count"], field["Total journal blocks"])
}
