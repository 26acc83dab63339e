package verify

import (
	"flag"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/banger-vm/banger/internal/image/tree"
)

var created = tree.Time{Sec: 1700000000, Nsec: 5}

// merged merges layers with package tree and returns a description of each
// path.
func merged(layers [][]entry, paths tree.Paths) (map[string]string, error) {
	m := tree.NewMerger(tree.Options{Paths: paths, Created: created})
	for _, layer := range layers {
		if err := m.NextLayer(); err != nil {
			return nil, err
		}
		for _, e := range layer {
			link := e.target
			if e.typ == tree.HardLink {
				link = e.link
			}
			err := m.Add(&tree.Entry{
				Name: e.name, Linkname: link, Type: e.typ, Mode: e.mode, UID: e.uid, GID: e.gid, Mtime: e.mtime,
				Major: e.major, Minor: e.minor, Xattrs: e.xattrs, Size: e.size,
			})
			if err != nil {
				return nil, err
			}
		}
	}
	t := m.Tree()
	out, first := map[string]string{}, map[tree.ID]string{}
	for path, id := range t.Walk() {
		in := t.Inode(id)
		if first[id] == "" {
			first[id] = path
		}
		f := metadata{
			typ: in.Type, mode: in.Mode, uid: in.UID, gid: in.GID, mtime: in.Mtime, major: in.Major, minor: in.Minor,
			size: in.Size, target: in.Target, xattrs: in.Xattrs,
		}
		out[path] = describe(f, in.Links, first[id])
	}
	return out, nil
}

// replayed replays layers with this package and returns a description of each
// path.
func replayed(layers [][]entry, paths tree.Paths) (map[string]string, error) {
	r := newReplay(created, paths, 1<<20)
	for _, layer := range layers {
		r.nextLayer()
		for i := range layer {
			if err := r.apply(&layer[i]); err != nil {
				return nil, fmt.Errorf("%s: %w", layer[i].name, err)
			}
		}
	}
	out, first := map[string]string{}, map[*node]string{}
	var walk func(path string, n *node)
	walk = func(path string, n *node) {
		if first[n] == "" {
			first[n] = path
		}
		out[path] = describe(n.metadata, n.links, first[n])
		for _, leaf := range slices.Sorted(maps.Keys(n.names)) {
			walk(join(path, leaf), n.names[leaf].node)
		}
	}
	walk(".", r.root)
	return out, nil
}

func describe(f metadata, links int, first string) string {
	if len(f.xattrs) == 0 {
		f.xattrs = nil
	}
	f.sum = [32]byte{}
	return fmt.Sprintf("%d links, first %s: %+v", links, first, f)
}

// part draws a component of a path from a few letters, so that paths are often
// equal, and from the names of whiteouts. If hostile is set, it also draws
// invalid components.
func part(hostile bool) *rapid.Generator[string] {
	usual := []string{"a", "a", "b", "b", "c", "d", ".wh.a", ".wh.b", ".wh.c", ".wh..wh..opq"}
	if hostile {
		usual = append(usual, "..", ".", "", ".wh.", ".wh..", ".wh...", ".wh..wh.plnk", ".wh..wh..opqx", ".wh.a")
	}
	return rapid.SampledFrom(usual)
}

func path(hostile bool) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		parts := rapid.SliceOfN(part(hostile), 1, 4).Draw(t, "parts")
		if !hostile { // real layers have no whiteouts as directories
			for i := range parts[:len(parts)-1] {
				parts[i] = strings.TrimPrefix(strings.ReplaceAll(parts[i], ".wh..wh..opq", "a"), ".wh.")
			}
		}
		name := strings.Join(parts, "/")
		if hostile && rapid.IntRange(0, 20).Draw(t, "absolute") == 0 {
			name = "/" + name
		}
		return name
	})
}

func layerEntry(hostile bool) *rapid.Generator[entry] {
	types := []tree.Type{
		tree.Regular, tree.Regular, tree.Directory, tree.Directory, tree.Directory,
		tree.Symlink, tree.HardLink, tree.HardLink, tree.Fifo, tree.CharDevice,
	}
	return rapid.Custom(func(t *rapid.T) entry {
		e := entry{name: path(hostile).Draw(t, "name")}
		e.typ = rapid.SampledFrom(types).Draw(t, "type")
		e.mode = uint16(rapid.IntRange(0, 0o7777).Draw(t, "mode"))
		e.uid = uint32(rapid.IntRange(0, 3).Draw(t, "uid"))
		e.mtime = tree.Time{Sec: int64(rapid.IntRange(-5, 5).Draw(t, "mtime"))}
		switch e.typ {
		case tree.Regular:
			e.size = int64(rapid.IntRange(0, 1000).Draw(t, "size"))
		case tree.Symlink:
			e.target = rapid.SampledFrom([]string{"a", "b", "c/d", "/a", "/b/c", "../a", "../b", ".", "/", "../.."}).Draw(t, "target")
		case tree.HardLink:
			e.link = path(hostile).Draw(t, "link")
		case tree.CharDevice:
			e.major = 3
		}
		return e
	})
}

// TestReplayAgreesWithMerge applies random layers with the merge, which builds
// disks, and with the replay, which verifies them. Both must make the same
// tree, or both must return an error.
func TestReplayAgreesWithMerge(t *testing.T) {
	if !testing.Short() {
		if err := flag.Set("rapid.checks", "1500"); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		paths   tree.Paths
		hostile bool
	}{
		{tree.Rooted, false},
		{tree.Scoped, false},
		{tree.Rooted, true},
		{tree.Strict, true},
		{tree.Scoped, true},
	} {
		t.Run(fmt.Sprintf("%s, hostile %v", row.paths, row.hostile), func(t *testing.T) {
			trees := 0
			rapid.Check(t, func(t *rapid.T) {
				layers := rapid.SliceOfN(rapid.SliceOfN(layerEntry(row.hostile), 1, 8), 1, 4).Draw(t, "layers")
				want, wantErr := merged(layers, row.paths)
				got, gotErr := replayed(layers, row.paths)
				if (wantErr == nil) != (gotErr == nil) {
					t.Fatalf("replay: %v, merge: %v", gotErr, wantErr)
				}
				if wantErr == nil {
					trees++
				}
				if !reflect.DeepEqual(got, want) {
					t.Fatalf("replay:\n%s\nmerge:\n%s", lines(got), lines(want))
				}
			})
			if trees == 0 {
				t.Error("every random image was refused")
			}
			t.Logf("%d images made a tree", trees)
		})
	}
}

func lines(tree map[string]string) string {
	var b strings.Builder
	for _, path := range slices.Sorted(maps.Keys(tree)) {
		fmt.Fprintf(&b, "  %s: %s\n", path, tree[path])
	}
	return b.String()
}
