package tarcopy

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A host is the destination of a copy, together with files that a stream must
// not reach: some beside the requested folder, and some outside of it.
type host struct{ root, dest string }

// newHost creates dest with files and with symlinks to them, as an earlier copy
// could have left them.
func newHost(t testing.TB) host {
	t.Helper()
	h := host{root: t.TempDir()}
	h.dest = filepath.Join(h.root, "dest")
	for _, dir := range []string{"outside", "dest/beside", "dest/got"} {
		if err := os.MkdirAll(filepath.Join(h.root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"outside/probe", "dest/beside/probe", "dest/probe"} {
		if err := os.WriteFile(filepath.Join(h.root, name), []byte("untouched"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"up": "../beside", "away": filepath.Join(h.root, "outside"), "file": "../beside/probe", "self": ".",
	} {
		if err := os.Symlink(target, filepath.Join(h.dest, "got", name)); err != nil {
			t.Fatal(err)
		}
	}
	when := time.Unix(1e9, 0)
	for _, name := range []string{"outside/probe", "outside", "dest/beside/probe", "dest/beside", "dest/probe"} {
		if err := os.Chtimes(filepath.Join(h.root, name), when, when); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// probe returns a description of the files that a stream must not change.
func (h host) probe(t testing.TB) []string {
	t.Helper()
	var lines []string
	err := filepath.Walk(h.root, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		if path == filepath.Join(h.dest, "got") {
			return filepath.SkipDir
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		line := fmt.Sprintf("%s %o %d:%d %d", strings.TrimPrefix(path, h.root), st.Mode, st.Uid, st.Gid, st.Nlink)
		if path != h.dest { // dest's time changes when a file is created in it
			line += fmt.Sprintf(" %d.%d", st.Mtim.Sec, st.Mtim.Nsec)
		}
		if info.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += " " + string(b)
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// attacks returns streams from a machine that was asked for "got".
func attacks() []struct {
	name    string
	entries []entry
	raw     func([]byte) []byte
	err     string // "" if the entry is harmless because it is not followed
} {
	link := func(name, target string) entry { return entry{name: name, kind: tar.TypeSymlink, target: target} }
	hard := func(name, target string) entry { return entry{name: name, kind: tar.TypeLink, target: target} }
	dir := func(name string) entry { return entry{name: name, kind: tar.TypeDir, mode: 0o777} }
	return []struct {
		name    string
		entries []entry
		raw     func([]byte) []byte
		err     string
	}{
		{name: "an absolute name", entries: []entry{{name: "/got"}}, err: "absolute"},
		{name: "a name that climbs", entries: []entry{{name: "got/../../outside/probe"}}, err: ".."},
		{name: "a name that climbs and stays", entries: []entry{{name: "got/x/../y"}}, err: ".."},
		{name: "a name beside", entries: []entry{{name: "probe"}}, err: "not in"},
		{name: "a name that begins alike", entries: []entry{{name: "gotcha"}}, err: "not in"},
		{name: "the folder itself", entries: []entry{dir("./")}, err: "not in"},
		{name: "dots for a name", entries: []entry{{name: ".."}}, err: ".."},
		{name: "dots after a slash", entries: []entry{dir("got/..")}, err: ".."},
		{name: "through a planted symlink", entries: []entry{link("got/l", "../beside"), {name: "got/l/probe"}}, err: "symlink"},
		{name: "through a planted absolute symlink", entries: []entry{link("got/l", "/tmp"), {name: "got/l/x"}}, err: "symlink"},
		{name: "through two planted symlinks", entries: []entry{link("got/a", "b"), link("got/b", ".."), {name: "got/a/probe"}}, err: "symlink"},
		{name: "through a planted symlink to itself", entries: []entry{link("got/a", "a"), {name: "got/a/x"}}, err: "symlink"},
		{name: "a folder through a planted symlink", entries: []entry{link("got/l", "../beside"), dir("got/l/")}, err: "cannot replace"},
		{name: "a folder below a planted symlink", entries: []entry{link("got/l", "../beside"), dir("got/l/d")}, err: "symlink"},
		{name: "a symlink below a planted symlink", entries: []entry{link("got/l", "../beside"), link("got/l/m", "x")}, err: "symlink"},
		{name: "through a symlink that was there", entries: []entry{{name: "got/up/probe"}}, err: "symlink"},
		{name: "out by a symlink that was there", entries: []entry{{name: "got/away/probe"}}, err: "symlink"},
		{name: "through a symlink to the folder", entries: []entry{{name: "got/self/self/x"}}, err: "symlink"},
		{name: "the mode of what a symlink leads to", entries: []entry{dir("got/away")}, err: "cannot replace"},
		{name: "onto a symlink that was there", entries: []entry{{name: "got/file", body: "attack"}}},
		{name: "onto a planted symlink", entries: []entry{link("got/l", "../probe"), {name: "got/l", body: "attack"}}},
		{name: "a hard link outside", entries: []entry{hard("got/h", "../outside/probe"), {name: "got/h", body: "x"}}, err: ".."},
		{name: "an absolute hard link", entries: []entry{hard("got/h", "/etc/passwd")}, err: "absolute"},
		{name: "a hard link beside", entries: []entry{hard("got/h", "beside/probe")}, err: "not in"},
		{name: "a hard link through a symlink that was there", entries: []entry{hard("got/h", "got/up/probe")}, err: "symlink"},
		{name: "a hard link through a planted symlink", entries: []entry{link("got/l", "../beside"), hard("got/h", "got/l/probe")}, err: "symlink"},
		{name: "a hard link to a symlink, then written", entries: []entry{hard("got/h", "got/file"), {name: "got/h", body: "attack", mode: 0o777}}},
		{name: "a hard link to itself", entries: []entry{{name: "got/x"}, hard("got/x", "got/x")}, err: "itself"},
		{name: "a hard link to nothing", entries: []entry{hard("got/h", "got/none")}, err: "hard link to"},
		{name: "a hard link to a folder", entries: []entry{dir("got/d"), hard("got/h", "got/d")}, err: "hard link to"},
		{name: "a hard link without a target", entries: []entry{hard("got/h", "")}, err: "no name"},
		{name: "a name that is long", entries: []entry{{name: "got/" + strings.Repeat("n/", 3000) + "n"}}, err: "name of"},
		{name: "a part that is long", entries: []entry{{name: "got/" + strings.Repeat("n", 256)}}, err: "part of"},
		{name: "a symlink that is long", entries: []entry{link("got/l", strings.Repeat("n", 5000))}, err: "target"},
		{name: "an owner below 0", entries: []entry{{name: "got/x"}}, raw: owner("\xff\xff\xff\xff\xff\xff\xff\xfe"), err: "owner"},
		{name: "an owner beyond 32 bits", entries: []entry{{name: "got/x"}}, raw: owner("\x80\x00\x00\x01\x00\x00\x00\x00"), err: "owner"},
		{name: "the owner that means none", entries: []entry{{name: "got/x"}}, raw: owner("\x80\x00\x00\x00\xff\xff\xff\xff"), err: "owner"},
		{name: "an unknown type", entries: []entry{{name: "got/x", kind: 'Z'}}, err: "unknown type"},
		{name: "a sparse file of an exabyte", raw: func([]byte) []byte { return exabyte() }, err: "sparse"},
		{name: "a map of holes without data", entries: []entry{{name: "got/x", kind: typeSparse}}, err: "map of a sparse file"},
		{name: "a map that ends early", entries: []entry{sparse(1<<20, 2, 0, 1)}, err: "map of a sparse file"},
		{name: "a map of too many extents", entries: []entry{sparse(1<<20, maxExtents+1)}, err: "65537 extents"},
		{name: "a map of less than no extents", entries: []entry{sparse(1<<20, -1)}, err: "-1 extents"},
		{name: "a sparse file below no bytes", entries: []entry{sparse(-1, 0)}, err: "-1 bytes"},
		{name: "an extent before the start", entries: []entry{sparse(1<<20, 1, -8, 8, 0)}, err: "extent of"},
		{name: "an extent beyond the end", entries: []entry{sparse(16, 1, 16, 8, 0)}, err: "extent of"},
		{name: "an extent whose end overflows", entries: []entry{sparse(1<<62, 1, 1<<61, 1<<63-1, 0)}, err: "extent of"},
		{name: "an extent without a length", entries: []entry{sparse(16, 1, 0, 0)}, err: "extent of"},
		{name: "extents that overlap", entries: []entry{sparse(64, 2, 0, 8, 4, 8, 0, 0)}, err: "extent of"},
		{name: "extents in falling order", entries: []entry{sparse(64, 2, 32, 8, 0, 8, 0, 0)}, err: "extent of"},
		{name: "data without an extent", entries: []entry{sparse(64, 0, 0)}, err: "its map has"},
		{name: "an extent without data", entries: []entry{sparse(64, 1, 0, 8)}, err: "its map has"},
		{name: "no tar stream", raw: func([]byte) []byte { return bytes.Repeat([]byte("garbage "), 1000) }, err: "read tar stream"},
		{name: "a device", entries: []entry{{name: "got/null", kind: tar.TypeChar}, {name: "got/disk", kind: tar.TypeBlock}}},
		{name: "setuid root", entries: []entry{{name: "got/sh", mode: 0o6777}}},
	}
}

// sparse returns an entry of typeSparse whose body has the numbers.
func sparse(numbers ...int64) entry {
	var b bytes.Buffer
	_ = binary.Write(&b, binary.BigEndian, numbers) // a Buffer has no errors
	return entry{name: "got/x", kind: typeSparse, body: b.String()}
}

// owner writes a number into the owner field of the first header, in GNU's base
// 256.
func owner(field string) func([]byte) []byte {
	return func(stream []byte) []byte {
		copy(stream[108:116], field)
		copy(stream[148:156], "        ")
		sum := 0
		for _, c := range stream[:512] {
			sum += int(c)
		}
		copy(stream[148:156], fmt.Sprintf("%06o\x00 ", sum))
		return stream
	}
}

// exabyte returns a sparse file of PAX format 1.0 without data: two records and
// a map.
func exabyte() []byte {
	record := func(key, value string) string {
		text := fmt.Sprintf(" %s=%s\n", key, value)
		for n := len(text); ; n++ {
			if line := fmt.Sprint(n) + text; len(line) == n {
				return line
			}
		}
	}
	records := record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") +
		record("GNU.sparse.name", "got/x") + record("GNU.sparse.realsize", "1152921504606846976")
	var b bytes.Buffer
	for _, e := range []struct {
		kind byte
		body string
	}{{'x', records}, {'0', "1\n1152921504606846976\n0\n"}} {
		h := make([]byte, 512)
		copy(h, "got/x")
		copy(h[100:], "0000644\x000000000\x000000000\x00")
		copy(h[124:], fmt.Sprintf("%011o", map[byte]int{'x': len(e.body), '0': 512}[e.kind]))
		copy(h[136:], "00000000000")
		h[156] = e.kind
		copy(h[257:], "ustar\x0000")
		b.Write(owner("0000000\x00")(h))
		b.Write(append([]byte(e.body), make([]byte, 512-len(e.body))...))
	}
	b.Write(make([]byte, 1024))
	return b.Bytes()
}

func TestHostileStream(t *testing.T) {
	for _, row := range attacks() {
		for _, opts := range []ExtractOptions{{From: "got", To: "got"}, {From: "got", To: "got", Owners: true}} {
			t.Run(fmt.Sprintf("%s/owners %v", row.name, opts.Owners), func(t *testing.T) {
				h := newHost(t)
				before := h.probe(t)
				stream := tarOf(t, row.entries...)
				if row.raw != nil {
					stream = row.raw(stream)
				}
				_, err := extract(t.Context(), stream, h.dest, opts)
				if err != nil && len(err.Error()) > 1000 {
					t.Errorf("error of %d bytes", len(err.Error()))
				}
				if (row.err == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), row.err) {
					t.Errorf("error %v, want %q", err, row.err)
				}
				h.check(t, before)
			})
		}
	}
}

// check fails the test if the probe has changed, if a device was created, or if
// a temporary file was left behind.
func (h host) check(t testing.TB, before []string) {
	t.Helper()
	if after := h.probe(t); !slices.Equal(after, before) {
		t.Errorf("the host has changed to\n%s\nfrom\n%s", strings.Join(after, "\n"), strings.Join(before, "\n"))
	}
	err := filepath.Walk(filepath.Join(h.dest, "got"), func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		if info.Mode()&os.ModeDevice != 0 {
			t.Errorf("%s is a device", path)
		}
		if strings.HasPrefix(info.Name(), ".banger-") {
			t.Errorf("%s is a temporary file that was not removed", path)
		}
		return nil
	})
	if err != nil && !os.IsPermission(err) {
		t.Fatal(err)
	}
}

// The probe detects an attack that succeeds: a stream that is fully trusted
// follows symlinks that stay in the folder.
func TestProbeCanFail(t *testing.T) {
	h := newHost(t)
	before := h.probe(t)
	if _, err := extract(t.Context(), tarOf(t, entry{name: "got/up/probe", body: "attack"}), h.dest, ExtractOptions{Trusted: true}); err != nil {
		t.Fatal(err)
	}
	if slices.Equal(h.probe(t), before) {
		t.Error("the probe does not see an attack")
	}
}

// A trusted stream may follow symlinks, but not out of the folder.
func TestTrustedStaysInside(t *testing.T) {
	for name, entries := range map[string][]entry{
		"absolute":    {{name: "got/away/probe"}},
		"planted":     {{name: "l", kind: tar.TypeSymlink, target: ".."}, {name: "l/outside/probe"}},
		"in two":      {{name: "a", kind: tar.TypeSymlink, target: "got"}, {name: "b", kind: tar.TypeSymlink, target: "a/../.."}, {name: "b/outside/probe"}},
		"a hard link": {{name: "l", kind: tar.TypeSymlink, target: ".."}, {name: "h", kind: tar.TypeLink, target: "l/outside/probe"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			before := h.probe(t)
			if _, err := extract(t.Context(), tarOf(t, entries...), h.dest, ExtractOptions{Trusted: true, Owners: true}); err == nil {
				t.Error("no error")
			}
			// The symlinks themselves are in the folder, which is allowed.
			for _, e := range entries {
				if e.kind == tar.TypeSymlink {
					must(t, os.Remove(filepath.Join(h.dest, e.name)))
				}
			}
			h.check(t, before)
		})
	}
}

// An endless stream of folders is refused before it exhausts memory.
func TestExtractBoundsFolders(t *testing.T) {
	requireRoot(t)
	value := strings.Repeat("v", 900<<10)
	one := tarOf(t, entry{name: "d/", kind: tar.TypeDir, mode: 0o755, records: map[string]string{"SCHILY.xattr.user.a": value}})
	one = one[:len(one)-1024] // without the end of the stream
	var stream io.Reader = &endless{one: one}
	if _, err := Extract(t.Context(), stream, t.TempDir(), ExtractOptions{Owners: true}); !is(err, "more than") {
		t.Errorf("got %v", err)
	}
}

type endless struct {
	one []byte
	at  int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.one[e.at:])
	e.at = (e.at + n) % len(e.one)
	return n, nil
}

// Extract reports a full disk and leaves no partial file.
func TestFullDisk(t *testing.T) {
	requireRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("mount: %v", err) // root in a container may not mount
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
	stream := tarOf(t, entry{name: "a", body: "a"}, entry{name: "b", body: strings.Repeat("b", 1<<20)})
	if _, err := extract(t.Context(), stream, dir, ExtractOptions{}); !is(err, unix.ENOSPC) {
		t.Errorf("error %v, want ENOSPC", err)
	}
	if got := list(t, dir); !slices.Equal(got, []string{"a=a"}) {
		t.Errorf("found %q", got)
	}
}

func FuzzExtract(f *testing.F) {
	seeds := attacks()
	if len(seeds) < 20 {
		f.Fatalf("%d seeds", len(seeds))
	}
	for _, row := range seeds {
		stream := tarOf(f, row.entries...)
		if row.raw != nil {
			stream = row.raw(stream)
		}
		f.Add(stream, false)
		f.Add(stream, true)
	}
	f.Fuzz(func(t *testing.T, stream []byte, owners bool) {
		h := newHost(t)
		before := h.probe(t)
		_, _ = Extract(t.Context(), bytes.NewReader(stream), h.dest, ExtractOptions{From: "got", To: "got", Owners: owners}) // most streams are refused
		h.check(t, before)
	})
}
