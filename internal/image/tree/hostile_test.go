package tree

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestHostilePaths adds entries that are attacks or mistakes of image
// builders. A strict merge must refuse each with an error that names the entry.
// A rooted merge must accept the absolute names alone, a scoped merge more.
func TestHostilePaths(t *testing.T) {
	linked := []Entry{dir("real"), file("real/victim"), symlink("ln", "real"), symlink("ln2", "ln"), file("plain"), symlink("self", "self")}
	long := strings.Repeat("n", 256)
	cases := []struct {
		name   string
		entry  Entry
		strict error
		scoped error // nil: accepted
	}{
		{"F3 dot-dot first", file("../x"), ErrDotDot, nil},
		{"F3 dot-dot in the middle", file("real/../../x"), ErrDotDot, nil},
		{"F3 dot-dot last", dir("real/.."), ErrDotDot, nil},
		{"F3 dot-dot last, a file", file("real/.."), ErrDotDot, ErrRootType},
		{"F3 absolute name", file("/etc/passwd"), ErrAbsoluteName, nil},
		{"F3 absolute directory", dir("/opt/"), ErrAbsoluteName, nil},
		{"F3 absolute name with dot-dot", file("/../x"), ErrDotDot, nil},
		{"F3 dot-dot of the root", dir("/.."), ErrDotDot, nil},
		{"F3 absolute hidden name", file("/.a"), ErrAbsoluteName, nil},
		{"F3 absolute whiteout", wh("/real/.wh.victim"), ErrAbsoluteName, nil},
		{"F6 absolute name through a symlink", file("/ln/x"), ErrSymlinkParent, nil},
		{"F7 absolute target through a symlink", hardLink("x", "/ln/victim"), ErrSymlinkParent, nil},
		{"F5 relative symlink escape", symlink("real/s", "../../x"), ErrUnsafeSymlink, nil},
		{"F5 symlink escape after a name", symlink("s", "a/../../x"), ErrUnsafeSymlink, nil},
		{"F6 write through a symlink", file("ln/x"), ErrSymlinkParent, nil},
		{"F6 write through two symlinks", file("ln2/x"), ErrSymlinkParent, nil},
		{"F6 mkdir through a symlink", dir("ln/x"), ErrSymlinkParent, nil},
		{"F6 symlink through a symlink", symlink("ln/x", "y"), ErrSymlinkParent, nil},
		{"F6 hard link's name through a symlink", hardLink("ln/x", "plain"), ErrSymlinkParent, nil},
		{"F6 hard link's target through a symlink", hardLink("x", "ln/victim"), ErrSymlinkParent, nil},
		{"F6 whiteout through a symlink", wh("ln/.wh.victim"), ErrSymlinkParent, nil},
		{"F6 opaque marker through a symlink", wh("ln/.wh..wh..opq"), ErrSymlinkParent, nil},
		{"F6 implied parent through a symlink", file("ln/a/b/c"), ErrSymlinkParent, nil},
		{"F6 self-loop symlink parent", file("self/x"), ErrSymlinkParent, ErrSymlinkLoop},
		{"F6 child of a regular file", file("plain/x"), ErrNotDirectory, ErrNotDirectory},
		{"F6 whiteout in a regular file", wh("plain/.wh.x"), ErrNotDirectory, ErrNotDirectory},
		{"F7 hard link outside of the root", hardLink("x", "../../etc/shadow"), ErrDotDot, ErrLinkMissing},
		{"F7 hard link to a directory", hardLink("x", "real"), ErrLinkDirectory, ErrLinkDirectory},
		{"F7 hard link to the root", hardLink("x", "/."), ErrLinkDirectory, ErrLinkDirectory},
		{"F7 hard link to a missing file", hardLink("x", "missing"), ErrLinkMissing, ErrLinkMissing},
		{"F7 hard link into a missing directory", hardLink("x", "no/such"), ErrLinkMissing, ErrLinkMissing},
		{"F7 hard link to itself alone", hardLink("x", "x"), ErrLinkMissing, ErrLinkMissing},
		{"F7 hard link with an empty target", hardLink("x", ""), ErrBadName, ErrBadName},
		{"F2 whiteout of an empty name", wh(".wh."), ErrReservedName, ErrReservedName},
		{"F2 whiteout of dot", wh("real/.wh.."), ErrReservedName, ErrReservedName},
		{"F2 whiteout of dot-dot", wh("real/.wh..."), ErrReservedName, ErrReservedName},
		{"F2 child of a whiteout", file(".wh.a/b"), ErrReservedName, ErrReservedName},
		{"NUL in a name", file("a\x00b"), ErrBadName, ErrBadName},
		{"NUL in a target", symlink("a", "b\x00c"), ErrBadName, ErrBadName},
		{"empty name", file(""), ErrBadName, ErrBadName},
		{"empty symlink", symlink("a", ""), ErrBadName, ErrBadName},
		{"root as a file", file("."), ErrRootType, ErrRootType},
		{"root as an absolute file", file("/"), ErrRootType, ErrRootType},
		{"root as a symlink", symlink("./", "/etc"), ErrRootType, ErrRootType},
		{"unknown type", Entry{Name: "x", Type: 99}, ErrBadType, ErrBadType},
		{"component of 256 bytes", file("a/" + long), &LimitError{}, &LimitError{}},
		{"path of 4097 bytes", file(strings.Repeat("a/", 2048) + "b"), &LimitError{}, &LimitError{}},
		{"symlink target of 4096 bytes", symlink("x", strings.Repeat("t", 4096)), &LimitError{}, &LimitError{}},
	}
	for _, c := range cases {
		for _, sameLayer := range []bool{false, true} {
			layers := [][]Entry{linked, {c.entry}}
			if sameLayer {
				layers = [][]Entry{append(append([]Entry{}, linked...), c.entry)}
			}
			t.Run(fmt.Sprintf("%s/same layer %v", c.name, sameLayer), func(t *testing.T) {
				_, err := merge(Options{Paths: Strict}, layers...)
				checkStrictRefusal(t, err, c.strict, c.entry)
				tree, err := merge(Options{}, layers...)
				if errors.Is(c.strict, ErrAbsoluteName) {
					if err != nil {
						t.Fatalf("rooted: %v", err)
					}
					checkInvariants(t, tree)
				} else {
					checkRefusal(t, err, c.strict, c.entry.Name)
				}
				tree, err = merge(Options{Paths: Scoped}, layers...)
				if c.scoped == nil && err == nil {
					checkInvariants(t, tree)
					return
				}
				checkRefusal(t, err, c.scoped, c.entry.Name)
			})
		}
	}
}

func checkRefusal(t *testing.T, err, want error, name string) {
	t.Helper()
	var limit, wantLimit *LimitError
	if errors.As(want, &wantLimit) {
		if !errors.As(err, &limit) {
			t.Fatalf("got %v, want a limit error", err)
		}
	} else if !errors.Is(err, want) || err == nil {
		t.Fatalf("got %v, want %v", err, want)
	}
	var entry *EntryError
	if !errors.As(err, &entry) || entry.Name != name {
		t.Fatalf("%v does not name entry %q", err, name)
	}
}

// checkStrictRefusal is checkRefusal for a strict merge, which refuses each
// absolute name as such.
func checkStrictRefusal(t *testing.T, err, want error, e Entry) {
	t.Helper()
	if strings.HasPrefix(e.Name, "/") && errors.Is(want, ErrSymlinkParent) {
		want = ErrAbsoluteName
	}
	checkRefusal(t, err, want, e.Name)
}

// TestF3RootedWarnings checks the tree of a rooted merge of a layer as ko and
// kaniko write it, and the warning that counts its absolute names.
func TestF3RootedWarnings(t *testing.T) {
	m := NewMerger(Options{Created: created})
	for _, layer := range []struct {
		entries []Entry
		want    string // part of the warning, "" for none
	}{
		{[]Entry{dir("/"), dir("./"), dir("//"), file("a")}, ""},
		{[]Entry{dir("/var"), file("/var/b"), dir("var"), hardLink("c", "/var/b")}, `hard link targets: 3, `},
		{[]Entry{file("d")}, ""},
		{[]Entry{wh("/var/.wh.b"), hardLink("e", "d")}, `the first is "/var/.wh.b"`},
	} {
		if err := m.NextLayer(); err != nil {
			t.Fatal(err)
		}
		for _, e := range layer.entries {
			if err := m.Add(&e); err != nil {
				t.Fatal(err)
			}
		}
		got := strings.Join(m.LayerWarnings(), "\n")
		if (got == "") != (layer.want == "") || !strings.Contains(got, layer.want) {
			t.Errorf("warnings %q, want %q", got, layer.want)
		}
	}
	if got, want := dump(m.Tree()), "a f0; c f0; d f0; e =d; var d"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestF3RootEntry checks that every mode takes the metadata of the root from an
// entry for it.
func TestF3RootEntry(t *testing.T) {
	for _, paths := range []Paths{Rooted, Strict, Scoped} {
		for _, name := range []string{"/", ".", "./", "/.", "//", "/./"} {
			tree, err := merge(Options{Paths: paths}, []Entry{dir("a")}, []Entry{dir(name)})
			if err != nil {
				t.Errorf("%s, %q: %v", paths, name, err)
			} else if in := tree.Inode(Root); in.UID != 1 || in.Mode != 0o700 {
				t.Errorf("%s, %q: root is %+v", paths, name, in)
			}
		}
	}
}

func TestF10RefusalsNameTheFlag(t *testing.T) {
	for _, e := range []Entry{file("/a")} {
		_, err := merge(Options{Paths: Strict}, []Entry{e})
		if err == nil || !IsPathRefusal(err) || !strings.Contains(err.Error(), "--paths=rooted") {
			t.Errorf("%s: %v", e.Name, err)
		}
	}
	for _, e := range []Entry{file("../a"), symlink("a", ".."), file("ln/a")} {
		_, err := merge(Options{}, []Entry{symlink("ln", "b"), e})
		if err == nil || !IsPathRefusal(err) || !strings.Contains(err.Error(), "--paths=scoped") {
			t.Errorf("%s: %v", e.Name, err)
		}
	}
	if _, err := merge(Options{}, []Entry{hardLink("a", "b")}); IsPathRefusal(err) {
		t.Errorf("--paths=scoped does not accept the entry of %v", err)
	}
}

func TestF4F5SymlinkTargetsThatStayInside(t *testing.T) {
	runMergeCases(t, Options{}, []mergeCase{
		{"F4 absolute target", [][]Entry{{symlink("etc/alternatives/awk", "/usr/bin/mawk")}}, "etc i; etc/alternatives i; etc/alternatives/awk l->/usr/bin/mawk"},
		{"F4 absolute target with dots", [][]Entry{{symlink("a", "/../../x")}}, "a l->/../../x"},
		{"F5 relative target up to the root", [][]Entry{{symlink("a/b/c", "../../d")}}, "a i; a/b i; a/b/c l->../../d"},
		{"F6 a symlink as the leaf is replaced", [][]Entry{{symlink("a", "b"), symlink("a", "c")}}, "a l->c"},
	})
}

func TestF10ScopedResolvesInsideTheImage(t *testing.T) {
	runMergeCases(t, Options{Paths: Scoped}, []mergeCase{
		{"absolute name", [][]Entry{{file("/a/b")}}, "a i; a/b f0"},
		{"dot-dot stops at the root", [][]Entry{{file("../../a")}}, "a f0"},
		{"relative symlink parent", [][]Entry{{dir("usr/lib"), symlink("lib", "usr/lib"), file("lib/x")}}, "lib l->usr/lib; usr i; usr/lib d; usr/lib/x f2"},
		{"absolute symlink parent", [][]Entry{{dir("usr/lib"), symlink("lib", "/usr/lib"), file("lib/x")}}, "lib l->/usr/lib; usr i; usr/lib d; usr/lib/x f2"},
		{"climbing symlink parent", [][]Entry{{symlink("a/up", "../../../b"), file("a/up/x")}}, "a i; a/up l->../../../b; b i; b/x f1"},
		{"directory of a dangling symlink parent is made", [][]Entry{{symlink("a", "b/c"), file("a/x")}}, "a l->b/c; b i; b/c i; b/c/x f1"},
		{"whiteout through a symlink", [][]Entry{{dir("d"), file("d/x"), symlink("a", "d")}, {wh("a/.wh.x")}}, "a l->d; d d"},
		{"opaque through a symlink", [][]Entry{{dir("d"), file("d/x"), symlink("a", "d")}, {wh("a/.wh..wh..opq"), file("d/y")}}, "a l->d; d d; d/y f101"},
		{"hard link both ways through symlinks", [][]Entry{{dir("d"), file("d/x"), symlink("a", "d"), hardLink("a/y", "/a/x")}}, "a l->d; d d; d/x f1; d/y =d/x"},
		{"directory entry through a symlink's name replaces it", [][]Entry{{dir("d"), symlink("a", "d"), dir("a")}}, "a d; d d"},
		{"dot-dot as the last part", [][]Entry{{dir("a/b"), dir("a/b/..")}}, "a d; a/b d"},
	})
}

func TestLimits(t *testing.T) {
	deep := file(strings.Repeat("d/", 5) + "f")
	cases := []struct {
		name    string
		o       Options
		entries []Entry
		option  string
	}{
		{"inodes", Options{MaxInodes: 3}, []Entry{file("a"), file("b"), file("c")}, "--max-inodes"},
		{"inodes that are replaced", Options{MaxInodes: 3}, []Entry{file("a"), file("a"), file("a")}, "--max-inodes"},
		{"names of one inode", Options{MaxInodes: 3}, []Entry{file("a"), hardLink("b", "a"), hardLink("c", "a"), hardLink("d", "a")}, "--max-inodes"},
		{"depth by implied parents", Options{MaxDepth: 4}, []Entry{deep}, "limits.depth"},
		{"depth by an entry", Options{MaxDepth: 2}, []Entry{dir("a"), dir("a/b"), dir("a/b/c")}, "limits.depth"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := merge(c.o, c.entries)
			var limit *LimitError
			if !errors.As(err, &limit) || limit.Option != c.option || !strings.Contains(err.Error(), c.option) {
				t.Errorf("got %v, want a limit of %s", err, c.option)
			}
		})
	}
	if _, err := merge(Options{MaxInodes: 4, MaxDepth: 5}, []Entry{file("a"), file("b"), file("c")}); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if _, err := merge(Options{MaxDepth: 5}, []Entry{deep}); err != nil {
		t.Errorf("at the depth limit: %v", err)
	}
	if err := NewMerger(Options{}).Add(&Entry{Name: "a", Type: Regular}); !errors.Is(err, errOutsideOfLayer) {
		t.Errorf("entry before a layer: %v", err)
	}
}

// TestManyOpaqueMarkersInLargeDirectory checks that a layer of markers does not
// take quadratic time. With 4·10^10 steps the test would run for minutes.
func TestManyOpaqueMarkersInLargeDirectory(t *testing.T) {
	const n = 200_000
	m := NewMerger(Options{})
	for l := range 2 {
		if err := m.NextLayer(); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			e := file(fmt.Sprintf("d/%d", i))
			if l == 1 {
				e = wh("d/.wh..wh..opq")
			}
			if err := m.Add(&e); err != nil {
				t.Fatal(err)
			}
		}
	}
	if tree := m.Tree(); tree.NumInodes() != 2 {
		t.Errorf("%d inodes left, want the root and d", tree.NumInodes())
	}
}
