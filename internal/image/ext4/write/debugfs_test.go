package write_test

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/image/ext4/ext4test"
)

// TestDebugfsReadsHashTree reads a hash tree with debugfs, which computes the hash
// of each name. Every name must be in the leaf of its hash.
func TestDebugfsReadsHashTree(t *testing.T) {
	img := ext4test.NewImage(t)
	const names = 5000 // enough for several leaves
	crowd(img, names)
	out := ext4test.E2Tool(t, 0, "debugfs", "-R", "htree_dump /d", img.Write(ext4test.Options()))
	root, leaves, found := strings.Cut(out, "\n\nEntry #0:")
	if !found || !strings.Contains(root, "Hash Version: 1\n") || !strings.Contains(root, "Indirect levels: 0\n") {
		t.Fatalf("no hash tree of one level:\n%s", root)
	}
	var firsts []uint64 // the lowest hash of each leaf
	for _, m := range regexp.MustCompile(`Entry #\d+: Hash 0x([0-9a-f]{8})`).FindAllStringSubmatch(root, -1) {
		firsts = append(firsts, hexOf(t, m[1])&^1)
	}
	listed := strings.Split(leaves, "Reading directory block")[1:]
	if len(firsts) < 10 || len(listed) != len(firsts) {
		t.Fatalf("%d leaves, %d of them in the root", len(listed), len(firsts))
	}
	name, seen := regexp.MustCompile(`0x([0-9a-f]{8})-[0-9a-f]{8} \(\d+\) (name-of-file-\d+)`), 0
	for i, leaf := range listed {
		for _, m := range name.FindAllStringSubmatch(leaf, -1) {
			seen++
			if h := hexOf(t, m[1]); h < firsts[i] || i+1 < len(firsts) && h > firsts[i+1] {
				t.Errorf("%s with hash %#x is in the leaf from %#x", m[2], h, firsts[i])
			}
		}
	}
	if seen != names {
		t.Errorf("%d names, want %d", seen, names)
	}
}

func hexOf(t *testing.T, text string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(text, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestDebugfsReadsExtentTrees reads extent trees of each depth with debugfs. The
// counts of extents are around those at which a tree gets deeper: an inode has room
// for 4, a block for 340.
func TestDebugfsReadsExtentTrees(t *testing.T) {
	disk := ext4test.EdgeCases(t).Write(ext4test.Options())
	line := regexp.MustCompile(`(?m)^ *(\d+)/ *(\d+) .*$`)
	for _, row := range []struct{ extents, depth int }{{4, 0}, {5, 1}, {340, 1}, {341, 1}, {1361, 2}} {
		out := ext4test.E2Tool(t, 0, "debugfs", "-R", fmt.Sprintf("ex /sparse%d", row.extents), disk)
		leaves := 0
		for _, m := range line.FindAllStringSubmatch(out, -1) {
			if m[2] != strconv.Itoa(row.depth) || strings.Contains(m[0], "Uninit") {
				t.Errorf("%d extents: want depth %d and written data: %s", row.extents, row.depth, m[0])
			}
			if m[1] == m[2] {
				leaves++
			}
		}
		if leaves != row.extents {
			t.Errorf("%d extents, want %d", leaves, row.extents)
		}
	}
}
