package tree

import (
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// FuzzMerge merges the entries of a program. A line of the program is a letter
// for the type, a name, and a target if the entry is a link. A line "-" starts
// the next layer. The merge must end, its counters must be correct, and a
// second merge must have the same result.
func FuzzMerge(f *testing.F) {
	seeds := []string{
		"d a\nf a/b\n-\nf a/.wh..wh..opq\nf a/c",
		"s a b/c\nf a/x\nh y a/x\n-\nf .wh.b\nd a",
		"f a/b/c\nh d /a/b/c\n-\nf .wh.a\nf a\n-\nd a\nf a/../z",
		"s s s\nf s/x",
		"f .wh..wh.plnk/1\nf .wh.\nf ../a\nf /a",
	}
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		for p := range pathsNames {
			f.Add(s, uint8(p))
		}
	}
	f.Fuzz(func(t *testing.T, program string, paths uint8) {
		p := Paths(int(paths) % len(pathsNames))
		first := runProgram(t, program, p)
		if second := runProgram(t, program, p); first != second {
			t.Errorf("first run gives %s\nsecond gives %s", first, second)
		}
	})
}

func runProgram(t *testing.T, program string, paths Paths) string {
	var layers [][]Entry
	types := map[string]Type{"d": Directory, "f": Regular, "s": Symlink, "h": HardLink, "p": Fifo}
	for layer := range strings.SplitSeq(program, "\n-\n") {
		var entries []Entry
		for line := range strings.SplitSeq(layer, "\n") {
			kind, rest, _ := strings.Cut(line, " ")
			name, target, _ := strings.Cut(rest, " ")
			entries = append(entries, Entry{Type: types[kind], Name: name, Linkname: target, Mode: 0o751})
		}
		layers = append(layers, entries)
	}
	tree, err := merge(Options{Paths: paths, MaxInodes: 1000, MaxDepth: 50}, layers...)
	if err != nil {
		return err.Error()
	}
	checkInvariants(t, tree)
	return dump(tree)
}

// TestTreeIsCompact checks the size of the tree in memory. An image may hold
// millions of inodes, and the whole conversion may use 200 bytes for each.
func TestTreeIsCompact(t *testing.T) {
	const n, dirs, limit = 500_000, 500, 110
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	m := NewMerger(Options{})
	if err := m.NextLayer(); err != nil {
		t.Fatal(err)
	}
	var e Entry
	for i := range n {
		e = file("srv/" + strconv.Itoa(i%dirs) + "/file-" + strconv.Itoa(i))
		if err := m.Add(&e); err != nil {
			t.Fatal(err)
		}
	}
	tree := m.Tree()
	runtime.GC()
	runtime.ReadMemStats(&after)
	perInode := (after.HeapAlloc - before.HeapAlloc) / n
	t.Logf("%d bytes per inode", perInode)
	if perInode > limit {
		t.Errorf("the tree takes %d bytes per inode, want at most %d", perInode, limit)
	}
	runtime.KeepAlive(tree)
}
