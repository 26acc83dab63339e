package tree

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

var created = Time{Sec: 1000, Nsec: 7}

func dir(name string) Entry  { return Entry{Name: name, Type: Directory, Mode: 0o700, UID: 1, GID: 2} }
func file(name string) Entry { return Entry{Name: name, Type: Regular, Mode: 0o644} }
func wh(name string) Entry   { return Entry{Name: name, Type: Regular} }

func symlink(name, target string) Entry {
	return Entry{Name: name, Type: Symlink, Mode: 0o777, Linkname: target}
}

func hardLink(name, target string) Entry {
	return Entry{Name: name, Type: HardLink, Linkname: target}
}

// merge merges layers in order. It sets the size of each regular file to 100 ×
// its layer + its index in the layer, so that a dump shows its origin.
func merge(o Options, layers ...[]Entry) (*Tree, error) {
	o.Created = created
	m := NewMerger(o)
	for l, entries := range layers {
		if err := m.NextLayer(); err != nil {
			return nil, err
		}
		for i, e := range entries {
			if e.Type == Regular {
				e.Size = int64(100*l + i)
			}
			if err := m.Add(&e); err != nil {
				return nil, err
			}
		}
	}
	return m.Tree(), nil
}

// dump lists the paths of a tree and their inodes: d is a directory with
// metadata of its own, i a directory with the metadata of an implied one,
// f<size> a file, l-><target> a symlink, and =<path of first name> a further
// name of an inode.
func dump(t *Tree) string {
	var lines []string
	first := map[ID]string{}
	for path, id := range t.Walk() {
		if path == "." {
			continue
		}
		in := t.Inode(id)
		line := path + " "
		switch {
		case first[id] != "":
			line += "=" + first[id]
		case in.Type == Directory && in.Mode == 0o755 && in.UID == 0 && in.GID == 0 && in.Mtime == created:
			line += "i"
		case in.Type == Directory:
			line += "d"
		case in.Type == Regular:
			line += fmt.Sprintf("f%d", in.Size)
		case in.Type == Symlink:
			line += "l->" + in.Target
		default:
			line += in.Type.String()
		}
		first[id] = path
		lines = append(lines, line)
	}
	return strings.Join(lines, "; ")
}

type mergeCase struct {
	name   string
	layers [][]Entry
	want   string
}

func runMergeCases(t *testing.T, o Options, cases []mergeCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			tree, err := merge(o, c.layers...)
			if err != nil {
				t.Fatal(err)
			}
			if got := dump(tree); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			checkInvariants(t, tree)
		})
	}
}

// checkInvariants compares the tree's counters with the results of a walk.
func checkInvariants(t *testing.T, tree *Tree) {
	t.Helper()
	links, names := map[ID]int{}, map[ID]int{}
	for _, id := range tree.Walk() {
		links[id]++
		last := ""
		for name := range tree.Children(id) {
			if names[id]++; name <= last {
				t.Errorf("name %q follows %q", name, last)
			}
			last = name
		}
	}
	if len(links) != tree.NumInodes() {
		t.Errorf("NumInodes = %d, a walk finds %d", tree.NumInodes(), len(links))
	}
	for id := ID(1); id < tree.EndID(); id++ {
		in := tree.Inode(id)
		if in.Links != links[id] {
			t.Errorf("inode %d: Links = %d, a walk finds %d", id, in.Links, links[id])
		}
		if in.Type == Directory && names[id] != in.Names {
			t.Errorf("inode %d: Names = %d, a walk finds %d", id, in.Names, names[id])
		}
		if (in.Type == 0) != (tree.Type(id) == 0) {
			t.Errorf("inode %d: Type gives %v, Inode %v", id, tree.Type(id), in.Type)
		}
	}
}

func TestF1LaterEntryReplacesEarlier(t *testing.T) {
	runMergeCases(t, Options{}, []mergeCase{
		{"file on file", [][]Entry{{file("a")}, {file("a")}}, "a f100"},
		{"file on file in one layer", [][]Entry{{file("a"), file("a")}}, "a f1"},
		{"file on directory", [][]Entry{{dir("a"), file("a/b"), dir("a/c")}, {file("a")}}, "a f100"},
		{"directory on file", [][]Entry{{file("a")}, {dir("a")}}, "a d"},
		{"directory on symlink", [][]Entry{{symlink("a", "b"), dir("b")}, {dir("a"), file("a/x")}}, "a d; a/x f101; b d"},
		{"file on symlink", [][]Entry{{symlink("a", "b"), file("b")}, {file("a")}}, "a f100; b f1"},
		{"symlink on directory", [][]Entry{{dir("a"), file("a/b")}, {symlink("a", "c")}}, "a l->c"},
		{"directory on directory merges", [][]Entry{{dir("a"), file("a/b")}, {dir("a"), file("a/c")}}, "a d; a/b f1; a/c f101"},
		{"names are sorted by bytes", [][]Entry{{file("b"), file("a.b"), dir("a"), file("a/z"), file("a-b")}}, "a d; a/z f3; a-b f4; a.b f1; b f0"},
		{"dots and slashes in a name", [][]Entry{{dir("./"), dir("./a/"), file("a//./b"), dir("a/.")}}, "a d; a/b f2"},
	})
}

func TestF1DirectoryEntryReplacesAllMetadata(t *testing.T) {
	old := Entry{
		Name: "d", Type: Directory, Mode: 0o2755, UID: 5, GID: 6, Mtime: Time{1, 2},
		Xattrs: []Xattr{{"user.a", "1"}, {"user.b", "2"}},
	}
	replacement := Entry{
		Name: "d", Type: Directory, Mode: 0o1700, UID: 70000, GID: 1 << 31, Mtime: Time{-3, 4},
		Xattrs: []Xattr{{"user.c", "3"}},
	}
	tree, err := merge(Options{}, []Entry{old, file("d/f")}, []Entry{replacement})
	if err != nil {
		t.Fatal(err)
	}
	for path, id := range tree.Walk() {
		if path != "d" {
			continue
		}
		in := tree.Inode(id)
		if in.Mode != 0o1700 || in.UID != 70000 || in.GID != 1<<31 || in.Mtime != (Time{-3, 4}) ||
			!slices.Equal(in.Xattrs, replacement.Xattrs) {
			t.Errorf("metadata is %+v", in)
		}
		return
	}
	t.Error("the tree has no d")
}

func TestF2Whiteouts(t *testing.T) {
	base := []Entry{dir("a"), file("a/b"), dir("a/c"), file("a/c/d"), file("e")}
	runMergeCases(t, Options{}, []mergeCase{
		{"file", [][]Entry{base, {wh("a/.wh.b")}}, "a d; a/c d; a/c/d f3; e f4"},
		{"directory", [][]Entry{base, {wh(".wh.a")}}, "e f4"},
		{"missing file", [][]Entry{base, {wh("a/.wh.zzz"), wh("no/such/.wh.x")}}, "a d; a/b f1; a/c d; a/c/d f3; e f4"},
		{"before a new file of the name", [][]Entry{base, {wh(".wh.e"), file("e")}}, "a d; a/b f1; a/c d; a/c/d f3; e f101"},
		{"after a new file of the name", [][]Entry{base, {file("e"), wh(".wh.e")}}, "a d; a/b f1; a/c d; a/c/d f3; e f100"},
		{"metadata of the hidden directory is removed", [][]Entry{base, {wh(".wh.a"), file("a/x")}}, "a i; a/x f101; e f4"},
		{"metadata is removed if the marker is last", [][]Entry{base, {file("a/x"), wh(".wh.a")}}, "a i; a/x f100; e f4"},
		{"keeps files of its own layer deep below", [][]Entry{base, {file("a/c/n"), wh(".wh.a")}}, "a i; a/c i; a/c/n f100; e f4"},
		{"marker is a hard link", [][]Entry{base, {{Name: ".wh.a", Type: HardLink, Linkname: ".wh..wh.plnk/1.2"}}}, "e f4"},
		{"one of two hard links", [][]Entry{{file("x"), hardLink("y", "x")}, {wh(".wh.x")}}, "y f0"},
		{"AUFS metadata is ignored", [][]Entry{base, {dir(".wh..wh.plnk"), file(".wh..wh.plnk/1.2"), file(".wh..wh.aufs"), dir("a/.wh..wh.orph")}}, "a d; a/b f1; a/c d; a/c/d f3; e f4"},
		{"in the same layer as the file", [][]Entry{{file("q"), wh(".wh.q")}}, "q f0"},
	})
}

func TestF2OpaqueHidesLowerLayersOnly(t *testing.T) {
	base := []Entry{dir("a"), file("a/b"), dir("a/c"), file("a/c/d"), file("e")}
	opq := wh("a/.wh..wh..opq")
	runMergeCases(t, Options{}, []mergeCase{
		{"marker first", [][]Entry{base, {opq, file("a/n"), file("a/c/m")}}, "a d; a/c i; a/c/m f102; a/n f101; e f4"},
		{"marker last", [][]Entry{base, {file("a/n"), file("a/c/m"), opq}}, "a d; a/c i; a/c/m f101; a/n f100; e f4"},
		{"marker between", [][]Entry{base, {file("a/n"), opq, file("a/c/m")}}, "a d; a/c i; a/c/m f102; a/n f100; e f4"},
		{"twice", [][]Entry{base, {opq, file("a/n"), opq}}, "a d; a/n f101; e f4"},
		{"explicit subdirectory stays", [][]Entry{base, {dir("a/c"), opq}}, "a d; a/c d; e f4"},
		{"explicit directory made before it", [][]Entry{base, {dir("a"), dir("a/c"), file("a/c/m"), opq}}, "a d; a/c d; a/c/m f102; e f4"},
		{"of a missing directory", [][]Entry{base, {wh("zz/.wh..wh..opq")}}, "a d; a/b f1; a/c d; a/c/d f3; e f4"},
		{"of the root", [][]Entry{base, {file("n"), wh(".wh..wh..opq")}}, "n f100"},
		{"in a directory that replaced a symlink", [][]Entry{{dir("r"), file("r/x"), symlink("a", "r")}, {dir("a"), opq, file("a/n")}}, "a d; a/n f102; r d; r/x f1"},
		{"three layers", [][]Entry{base, {file("a/n")}, {opq, file("a/o")}}, "a d; a/o f201; e f4"},
		{"then a later layer adds", [][]Entry{base, {opq}, {file("a/c/z")}}, "a d; a/c i; a/c/z f200; e f4"},
	})
}

func TestF7HardLinks(t *testing.T) {
	runMergeCases(t, Options{}, []mergeCase{
		{"within a layer", [][]Entry{{file("a"), hardLink("b", "a")}}, "a f0; b =a"},
		{"to a lower layer", [][]Entry{{file("a")}, {hardLink("d/b", "a")}}, "a f0; d i; d/b =a"},
		{"to a symlink", [][]Entry{{symlink("a", "x"), hardLink("b", "a")}}, "a l->x; b =a"},
		{"absolute target is the image's root", [][]Entry{{file("u/a"), hardLink("b", "/u/a")}}, "b f0; u i; u/a =b"},
		{"survives the removal of its target", [][]Entry{{file("a"), hardLink("b", "a")}, {wh(".wh.a")}}, "b f0"},
		{"survives the replacement of its target", [][]Entry{{file("a"), hardLink("b", "a")}, {file("a")}}, "a f100; b f0"},
		{"to itself", [][]Entry{{file("a"), hardLink("a", "a")}}, "a f0"},
		{"over the directory its target is in", [][]Entry{{dir("a"), file("a/b"), file("c"), hardLink("a", "a/b")}}, "a f1; c f2"},
		{"kept by a whiteout of its own layer", [][]Entry{{file("a"), file("b")}, {hardLink("b", "a"), wh(".wh.b")}}, "a f0; b =a"},
	})
}

func TestF9ImpliedParents(t *testing.T) {
	runMergeCases(t, Options{}, []mergeCase{
		{"made", [][]Entry{{file("a/b/c")}}, "a i; a/b i; a/b/c f0"},
		{"then described", [][]Entry{{file("a/b/c"), dir("a")}}, "a d; a/b i; a/b/c f0"},
		{"then described by a later layer", [][]Entry{{file("a/b/c")}, {dir("a/b")}}, "a i; a/b d; a/b/c f0"},
	})
	tree, err := merge(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if root := tree.Inode(Root); root.Mode != 0o755 || root.Mtime != created || root.Type != Directory {
		t.Errorf("root without an entry is %+v", root)
	}
}

func TestF8MetadataAtFullWidth(t *testing.T) {
	want := Entry{
		Name: "dev", Type: CharDevice, Mode: 0o7777, UID: 1<<32 - 1, GID: 1<<32 - 2,
		Mtime: Time{-1 << 40, 999_999_999}, Major: 1<<32 - 1, Minor: 1<<32 - 3,
		Xattrs: []Xattr{{"security.capability", "\x00\x01"}},
	}
	body := Entry{
		Name: "f", Type: Regular, Mode: 0o4755, Size: 1 << 40,
		Body: Body{Offset: 1 << 41, Runs: []Run{{0, 4096}, {8192, 1}}},
	}
	m := NewMerger(Options{})
	for range 3 {
		if err := m.NextLayer(); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range []Entry{want, body, {Name: "p", Type: Fifo}, {Name: "e", Type: Regular, Body: Body{Runs: []Run{}}}} {
		if err := m.Add(&e); err != nil {
			t.Fatal(err)
		}
	}
	tree := m.Tree()
	got := map[string]Inode{}
	for path, id := range tree.Walk() {
		got[path] = tree.Inode(id)
	}
	d := got["dev"]
	if d.Type != want.Type || d.Mode != want.Mode || d.UID != want.UID || d.GID != want.GID ||
		d.Mtime != want.Mtime || d.Major != want.Major || d.Minor != want.Minor || !slices.Equal(d.Xattrs, want.Xattrs) {
		t.Errorf("device is %+v", d)
	}
	f := got["f"]
	if f.Size != body.Size || f.Body.Layer != 2 || f.Body.Offset != body.Body.Offset || !slices.Equal(f.Body.Runs, body.Body.Runs) {
		t.Errorf("file is %+v", f)
	}
	if e := got["e"]; e.Body.Runs == nil || len(e.Body.Runs) != 0 {
		t.Errorf("a file that is one hole has runs %#v, want an empty list that is not nil", e.Body.Runs)
	}
	if got["p"].Type != Fifo {
		t.Errorf("fifo is %+v", got["p"])
	}
}
