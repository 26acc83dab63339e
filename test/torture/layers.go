package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"strings"
	"time"
)

// lowerLayer returns a layer with every kind of inode, and with the files that the layers above hide, replace and link
// to.
func lowerLayer() []entry {
	// The entry of the root sets its metadata, which the unpacker would choose otherwise.
	entries := []entry{node(tar.TypeDir, "./", 0o755)}
	for _, part := range [][]entry{kinds(), modes(), owners(), times(), xattrs(), bodies(), symlinks(), links(), crowd()} {
		entries = append(entries, part...)
	}
	return append(entries,
		file("implied/by/a/file", 0o644, "parents without entries\n"),
		file("late/inner", 0o644, "the directory's entry follows its content\n"),
		dir("late", 0o2711).owned(7, 8).at(time.Unix(1, 1)),
		dir("gone", 0o755), file("gone/file", 0o644, "gone\n"), dir("gone/tree", 0o755), file("gone/tree/leaf", 0o644, "gone\n"),
		dir("opaque", 0o755), file("opaque/lower", 0o644, "hidden\n"), file("opaque/both", 0o644, "hidden\n"),
		dir("opaque/sub", 0o755), file("opaque/sub/lower", 0o644, "hidden\n"),
		dir("change", 0o755), dir("change/dir-to-file", 0o755), file("change/dir-to-file/inner", 0o644, "hidden\n"),
		file("change/file-to-dir", 0o644, "hidden\n"), symlink("change/link-to-dir", "../kinds"),
		dir("change/dir-to-link", 0o755), file("change/dir-to-link/inner", 0o644, "hidden\n"),
		file("change/metadata", 0o600, "same body\n").xattr("user.old", []byte("old")),
		dir("change/dir-metadata", 0o700).xattr("user.old", []byte("old")).owned(5, 5),
		file("change/dir-metadata/kept", 0o644, "kept\n"),
	)
}

func kinds() []entry {
	return []entry{
		dir("kinds", 0o755),
		file("kinds/regular", 0o644, "regular\n"),
		node(tar.TypeFifo, "kinds/fifo", 0o640),
		device(tar.TypeChar, "kinds/null", 1, 3),
		device(tar.TypeChar, "kinds/old-limit", 255, 255),
		device(tar.TypeChar, "kinds/new-major", 256, 1),
		device(tar.TypeBlock, "kinds/new-minor", 1, 256),
		device(tar.TypeBlock, "kinds/widest", 4095, 1048575),
		dir("kinds/empty-dir", 0o755),
	}
}

func modes() []entry {
	out := []entry{dir("modes", 0o755)}
	for _, mode := range []int64{0, 0o001, 0o444, 0o644, 0o1777, 0o2755, 0o4755, 0o6711, 0o7777, 0o4000} {
		out = append(out, file(fmt.Sprintf("modes/file-%04o", mode), mode, "mode\n"))
	}
	return append(out, dir("modes/dir-0000", 0), file("modes/dir-0000/inside", 0, "deep\n"),
		dir("modes/dir-1777", 0o1777), dir("modes/dir-2775", 0o2775), dir("modes/dir-7777", 0o7777))
}

func owners() []entry {
	out := []entry{dir("owners", 0o755)}
	for _, id := range []int{1, 1000, 65534, 65535, 65536, 1 << 31, 1<<32 - 2} {
		out = append(out,
			file(fmt.Sprintf("owners/file-%d", id), 0o4755, "owned\n").owned(id, 0),
			file(fmt.Sprintf("owners/group-%d", id), 0o644, "owned\n").owned(0, id),
			symlink(fmt.Sprintf("owners/link-%d", id), "nowhere").owned(id, id),
			dir(fmt.Sprintf("owners/dir-%d", id), 0o755).owned(id, id))
	}
	return out
}

// times returns entries with times over the whole range of ext4, whose 34 bits of seconds end in 2446.
func times() []entry {
	out := []entry{dir("times", 0o755)}
	for _, t := range []struct {
		name string
		time time.Time
	}{
		{"1901", time.Unix(-1<<31, 0)},
		{"1960", time.Date(1960, 2, 3, 4, 5, 6, 7, time.UTC)},
		{"minus-one", time.Unix(-1, 0)},
		{"minus-half", time.Unix(-1, 500_000_000)},
		{"epoch", time.Unix(0, 0)},
		{"one-nanosecond", time.Unix(1_500_000_000, 1)},
		{"last-nanosecond", time.Unix(1_500_000_000, 999_999_999)},
		{"2038", time.Unix(1<<31-1, 999_999_999)},
		{"2038-after", time.Unix(1<<31, 1)},
		{"2106", time.Unix(1<<32, 2)},
		{"2400", time.Date(2400, 2, 29, 23, 59, 59, 123456789, time.UTC)},
		{"2446", time.Unix(3<<32+1<<31-1, 0)},
	} {
		out = append(out, file("times/file-"+t.name, 0o644, "time\n").at(t.time),
			symlink("times/link-"+t.name, "nowhere").at(t.time), dir("times/dir-"+t.name, 0o755).at(t.time))
	}
	return out
}

func xattrs() []entry {
	out := []entry{
		dir("xattrs", 0o755).xattr("user.dir", []byte("on a directory")),
		file("xattrs/cap-v2", 0o755, "\x7fELF").xattr("security.capability", capability(1<<13)),
		file("xattrs/cap-v3", 0o755, "\x7fELF").xattr("security.capability", namespacedCapability(1<<10, 100000)),
		file("xattrs/acl", 0o660, "shared\n").xattr("system.posix_acl_access", sharedACL()),
		dir("xattrs/acl-dir", 0o660).xattr("system.posix_acl_access", sharedACL()).
			xattr("system.posix_acl_default", sharedACL()),
		file("xattrs/empty", 0o644, "").xattr("user.empty", nil),
		file("xattrs/binary", 0o644, "").xattr("user.binary", []byte{1, 2, 255, 10, 61, 32}),
		file("xattrs/trusted", 0o644, "").xattr("trusted.banger", []byte("root only")),
		symlink("xattrs/link", "acl").xattr("trusted.link", []byte("on a symlink")),
		// In the xattr block "user.zz" precedes "user.aaa", because its name is shorter.
		file("xattrs/order", 0o644, "").xattr("user.zz", bytes.Repeat([]byte("z"), 90)).
			xattr("user.aaa", bytes.Repeat([]byte("a"), 90)).xattr("user.b", bytes.Repeat([]byte("b"), 90)).
			xattr("trusted.c", bytes.Repeat([]byte("c"), 90)),
	}
	for _, size := range []int{1, 60, 75, 76, 77, 80, 96, 100, 1000, 3900} {
		out = append(out, file(fmt.Sprintf("xattrs/size-%d", size), 0o644, "").xattr("user.x", bytes.Repeat([]byte("v"), size)))
	}
	many := file("xattrs/many", 0o644, "")
	for i := range 40 {
		many = many.xattr(fmt.Sprintf("user.name-%02d", i), []byte(strings.Repeat("v", i)))
	}
	return append(out, many)
}

// bodies returns files with sizes around the boundaries of blocks and holes.
func bodies() []entry {
	const block = 4096
	out := []entry{dir("bodies", 0o755)}
	for _, size := range []int{0, 1, block - 1, block, block + 1, 12*block + 1, 1 << 20} {
		out = append(out, file(fmt.Sprintf("bodies/noise-%d", size), 0o644, string(noise(size))),
			file(fmt.Sprintf("bodies/zero-%d", size), 0o644, string(make([]byte, size))))
	}
	mixed := append(append(make([]byte, 3*block), noise(2*block)...), make([]byte, 5*block)...)
	unaligned := append(append(noise(100), make([]byte, 2*block)...), noise(100)...)
	var comb []byte
	for i := range 700 {
		comb = append(comb, bytes.Repeat([]byte{byte(i%255 + 1)}, block)...)
		comb = append(comb, make([]byte, block)...)
	}
	return append(out, file("bodies/hole-first-and-last", 0o644, string(mixed)),
		file("bodies/hole-unaligned", 0o644, string(unaligned)),
		file("bodies/comb", 0o644, string(comb)), file("bodies/large", 0o644, string(noise(9_000_001))))
}

func symlinks() []entry {
	out := []entry{dir("symlinks", 0o755), symlink("symlinks/absolute", "/usr/bin/mawk"),
		symlink("symlinks/dangling", "no/where"), symlink("symlinks/self", "self"), symlink("symlinks/up", "../kinds/regular")}
	// A target of 59 bytes fits into the inode, one of 60 does not. A component has at most 255 bytes, a target 4095.
	for _, size := range []int{1, 58, 59, 60, 61, 255, 1023, 4095} {
		target := strings.Repeat(strings.Repeat("t", 99)+"/", 41)[:size-1] + "e"
		out = append(out, symlink(fmt.Sprintf("symlinks/size-%04d", size), target))
	}
	return out
}

func links() []entry {
	return []entry{
		dir("links", 0o755),
		file("links/first", 0o640, "three names\n").owned(11, 12).xattr("user.shared", []byte("by all")),
		link("links/second", "links/first"), link("links/absolute", "/links/first"),
		file("links/moved", 0o600, "its first name goes\n"),
		file("links/replaced", 0o600, "the old inode lives on\n"),
		link("links/replaced-old", "links/replaced"),
		symlink("links/symlink", "first"), link("links/symlink-too", "links/symlink"),
		node(tar.TypeFifo, "links/fifo", 0o600), link("links/fifo-too", "links/fifo"),
	}
}

// crowd returns a directory with so many entries that it needs an index.
func crowd() []entry {
	out := []entry{dir("crowd", 0o755)}
	for i := range 3000 {
		out = append(out, file(fmt.Sprintf("crowd/a-name-long-enough-that-few-of-them-fit-a-block-%05d", i), 0o644, ""))
	}
	return out
}

// middleLayer returns a layer that hides and replaces files. Its opaque marker is the last entry of its directory.
func middleLayer() []entry {
	return []entry{
		whiteout(".wh.gone"),
		file("opaque/both", 0o644, "upper\n"), file("opaque/upper", 0o644, "upper\n"),
		dir("opaque/sub", 0o700), file("opaque/sub/upper", 0o644, "upper\n"), whiteout("opaque/.wh..wh..opq"),
		file("change/dir-to-file", 0o644, "now a file\n"), dir("change/file-to-dir", 0o751),
		file("change/file-to-dir/inner", 0o644, "inner\n"), dir("change/link-to-dir", 0o755),
		file("change/link-to-dir/inner", 0o644, "not in kinds\n"), symlink("change/dir-to-link", "../kinds"),
		file("change/metadata", 0o4755, "same body\n").owned(9, 9).xattr("user.new", []byte("new")),
		dir("change/dir-metadata", 0o1777).owned(6, 6).xattr("user.new", []byte("new")),
		link("links/moved-across", "links/moved"), whiteout("links/.wh.moved"),
		link("links/symlink-across", "links/symlink"),
		file("links/replaced", 0o644, "a new inode\n"),
		dir("same", 0o755), file("same/name", 0o600, "first\n"), file("same/name", 0o644, "second\n"),
	}
}

// upperLayer returns a layer that brings back hidden files, and links to inodes whose first names are hidden.
func upperLayer() []entry {
	return []entry{
		dir("gone", 0o711).at(time.Unix(77, 77)), file("gone/back", 0o644, "back\n"),
		link("links/third-layer", "links/moved-across"),
		whiteout("links/.wh.first"), link("links/after", "links/second"),
		whiteout("same/.wh.nothing"),
	}
}

// nameLayer returns a layer with names that ext4 accepts and a debugfs script cannot have.
func nameLayer() []entry {
	names := []string{
		"new\nline", "quote\"double", "quote'single", "back\\slash", "tab\t", "escape\x1b[31m", "delete\x7f", " leading", "trailing ",
		"-dash", "#hash", "$(touch x)", "`touch x`", "*", "?", "...", ".hidden", "caf\u00e9", "cafe\u0301", "\U0001f433",
		"latin1-\xe9", "invalid-\xff\xfe", strings.Repeat("n", 255), strings.Repeat("\u00e9", 127),
	}
	out := []entry{node(tar.TypeDir, "./", 0o755), dir("names", 0o755)}
	for i, name := range names {
		out = append(out, file("names/"+name, 0o4711, name).owned(i, 100+i), dir("names/in "+name[:min(len(name), 200)], 0o700),
			symlink("names/to "+name[:min(len(name), 200)], name))
	}
	deep := "deep-directory"
	for range 200 {
		out = append(out, dir(deep, 0o711))
		deep += "/deep-directory"
	}
	return append(out, file(deep, 0o644, "3,000 bytes down\n"))
}
