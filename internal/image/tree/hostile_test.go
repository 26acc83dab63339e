package tree

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestHostilePaths adds entries that are attacks or mistakes of image
// builders. A strict merge must refuse each with an error that names the entry.
// A scoped merge must accept some of them.
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
		{"F3 absolute directory", dir("/"), ErrAbsoluteName, nil},
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
				_, err := merge(Options{}, layers...)
				checkRefusal(t, err, c.strict, c.entry.Name)
				tree, err := merge(Options{Scoped: true}, layers...)
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

func TestF10ErrorsOfStrictPathsNameTheFlag(t *testing.T) {
	for _, e := range []Entry{file("/a"), file("../a"), symlink("a", ".."), file("ln/a")} {
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
	runMergeCases(t, Options{Scoped: true}, []mergeCase{
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
