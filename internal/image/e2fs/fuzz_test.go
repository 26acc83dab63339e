package e2fs

import (
	"bufio"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/image/tree"
)

// outputs are scripts and the output of debugfs 1.47.0 for them.
var outputs = []struct{ script, out string }{
	{
		"ls -p <2>\nls -p <12>\n",
		"debugfs 1.47.0 (5-Feb-2023)\ndebugfs: ls -p <2>\n/2/040755/0/0/.//\n/2/040755/0/0/..//\n/11/040700/0/0/lost+found//\n/12/040755/0/0/d//\n/13/120777/0/0/l/3/\n\n" +
			"debugfs: ls -p <12>\n/12/040755/0/0/.//\n/2/040755/0/0/..//\n/14/100644/0/0/f/2/\n/14/100644/0/0/g/2/\n\n",
	},
	{"cd <12>\nmknod \"n\" c 0 0\n", "debugfs 1.47.0 (5-Feb-2023)\ndebugfs: cd <12>\ndebugfs: mknod \"n\" c 0 0\nAllocated inode: 23\n"},
	{"rm \"./l\"\nbogus\n", "debugfs 1.47.0 (5-Feb-2023)\ndebugfs: rm \"./l\"\n\ndebugfs: bogus\ndebugfs: Command not found bogus\n"},
	{
		"set_inode_field <99999> mode 0100644\n",
		"debugfs 1.47.0 (5-Feb-2023)\ndebugfs: set_inode_field <99999> mode 0100644\n<99999>: File not found by ext2_lookup \n",
	},
}

// FuzzCheckOutput checks that checkOutput accepts output only if it has the
// echo of every command and no other text.
func FuzzCheckOutput(f *testing.F) {
	if len(outputs) == 0 {
		f.Fatal("no seeds")
	}
	for _, o := range outputs {
		f.Add(o.script, o.out)
	}
	f.Fuzz(func(t *testing.T, script, out string) {
		lines := strings.Count(script, "\n")
		err := checkOutput(bufio.NewReader(strings.NewReader(script)), lines, strings.NewReader(out), wantSilence)
		if err != nil {
			return
		}
		// checkOutput accepted it, so there are only the echoes and the banner.
		left := lines
		for line := range strings.Lines(out) {
			line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
			if strings.HasPrefix(line, "debugfs: ") {
				left--
				continue
			}
			if line != "" && !isBanner(line) {
				t.Fatalf("%q was accepted", line)
			}
		}
		if left != 0 {
			t.Fatalf("%d of %d commands were not executed", left, lines)
		}
	})
}

// TestCheckOutput checks the errors for the seeds of FuzzCheckOutput, and an
// output that is accepted.
func TestCheckOutput(t *testing.T) {
	for i, want := range []string{"/2/040755", "Allocated inode", "Command not found bogus", "File not found"} {
		o := outputs[i]
		err := checkOutput(bufio.NewReader(strings.NewReader(o.script)), strings.Count(o.script, "\n"), strings.NewReader(o.out), wantSilence)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error is %v", o.script, err)
		}
	}
	good := "debugfs 1.47.0 (5-Feb-2023)\ndebugfs: a\ndebugfs: b\n"
	if err := checkOutput(bufio.NewReader(strings.NewReader("a\nb\n")), 2, strings.NewReader(good), wantSilence); err != nil {
		t.Error(err)
	}
}

// Output of ls -p for the root and for d of listedTree.
const (
	rootListing = "/2/040755/0/0/.//\n/2/040755/0/0/..//\n/11/040700/0/0/lost+found//\n/12/040755/0/0/d//\n/13/120777/0/0/l/3/\n\n"
	dirListing  = "/12/040755/0/0/.//\n/2/040755/0/0/..//\n/14/100644/0/0/f/2/\n/14/100644/0/0/g/2/\n\n"
)

func listedTree(t testing.TB) *tree.Tree {
	t.Helper()
	m := tree.NewMerger(tree.Options{})
	if err := m.NextLayer(); err != nil {
		t.Fatal(err)
	}
	for _, e := range []tree.Entry{
		{Name: "d/f", Type: tree.Regular}, {Name: "d/g", Type: tree.HardLink, Linkname: "d/f"},
		{Name: "l", Type: tree.Symlink, Linkname: "d/f"}, {Name: "d/n", Type: tree.CharDevice},
	} {
		if err := m.Add(&e); err != nil {
			t.Fatal(err)
		}
	}
	return m.Tree()
}

// FuzzListing checks that the parser of directory listings either returns an
// error or finds the inode of every name.
func FuzzListing(f *testing.F) {
	merged := listedTree(f)
	if _, err := readListings(merged, rootListing, dirListing); err != nil {
		f.Fatalf("the seed is refused: %v", err)
	}
	f.Add(rootListing, dirListing)
	f.Fuzz(func(t *testing.T, root, dir string) {
		r, err := readListings(merged, root, dir)
		if err != nil {
			return
		}
		for path, id := range merged.Walk() {
			if r.inodes[id] == 0 && merged.Type(id) != tree.CharDevice {
				t.Fatalf("%s has no inode", path)
			}
		}
		if len(r.special) != 1 || r.special[0].name != "n" || len(r.duplicates) != 0 {
			t.Fatalf("special files are %v, duplicates %v", r.special, r.duplicates)
		}
	})
}

// readListings parses listings, one for each level of the tree.
func readListings(merged *tree.Tree, levels ...string) (*restorer, error) {
	r := &restorer{tree: merged, inodes: make([]uint32, merged.EndID())}
	r.inodes[tree.Root] = rootInode
	dirs := []tree.ID{tree.Root}
	for _, out := range levels {
		l := listing{restorer: r, dirs: dirs, at: -1}
		for line := range strings.Lines(out) {
			if err := l.line(0, strings.TrimSuffix(line, "\n")); err != nil {
				return nil, err
			}
		}
		if err := l.begin(len(dirs)); err != nil {
			return nil, err
		}
		dirs = l.below
	}
	return r, nil
}
