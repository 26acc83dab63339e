package layer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/banger-vm/banger/internal/image/tree"
)

// testFile is a file of a generated archive and the entry that the reader
// must return for it.
type testFile struct {
	header tar.Header
	body   []byte
	want   tree.Entry
}

func drawFile(t *rapid.T, i int) testFile {
	name := fmt.Sprintf("%d-%s", i, rapid.StringMatching(`[^\x00/]{0,60}(/[^\x00/]{1,60}){0,3}`).Draw(t, "name"))
	mtime := time.Unix(rapid.Int64Range(-1<<33, 1<<33).Draw(t, "sec"), rapid.Int64Range(0, 999_999_999).Draw(t, "nsec"))
	f := testFile{
		header: tar.Header{
			Name: name, Format: tar.FormatPAX, ModTime: mtime, Mode: rapid.Int64Range(0, 0o7777).Draw(t, "mode"),
			Uid: int(rapid.Uint32().Draw(t, "uid")), Gid: int(rapid.Uint32().Draw(t, "gid")), PAXRecords: map[string]string{},
		},
	}
	f.want = tree.Entry{
		Name: name, Mode: uint16(f.header.Mode), UID: uint32(f.header.Uid), GID: uint32(f.header.Gid),
		Mtime: tree.Time{Sec: mtime.Unix(), Nsec: uint32(mtime.Nanosecond())},
	}
	attribute := rapid.StringMatching(`(user|trusted|security)\.[a-zA-Z0-9_.-]{1,40}`)
	for _, name := range rapid.SliceOfNDistinct(attribute, 0, 3, rapid.ID).Draw(t, "attributes") {
		value := string(rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "value"))
		f.header.PAXRecords["SCHILY.xattr."+name] = value
		f.want.Xattrs = append(f.want.Xattrs, tree.Xattr{Name: name, Value: value})
	}
	slices.SortFunc(f.want.Xattrs, func(a, b tree.Xattr) int { return strings.Compare(a.Name, b.Name) })
	f.drawType(t)
	return f
}

func (f *testFile) drawType(t *rapid.T) {
	f.want.Type = rapid.SampledFrom([]tree.Type{
		tree.Regular, tree.Regular, tree.Regular, tree.Directory, tree.Symlink,
		tree.HardLink, tree.CharDevice, tree.BlockDevice, tree.Fifo,
	}).Draw(t, "type")
	switch f.want.Type {
	case tree.Regular:
		f.header.Typeflag = tar.TypeReg
		f.body = drawBody(t)
		f.header.Size, f.want.Size = int64(len(f.body)), int64(len(f.body))
	case tree.Directory:
		f.header.Typeflag = tar.TypeDir
	case tree.Symlink, tree.HardLink:
		f.header.Typeflag = map[tree.Type]byte{tree.Symlink: tar.TypeSymlink, tree.HardLink: tar.TypeLink}[f.want.Type]
		f.header.Linkname = rapid.StringMatching(`[^\x00]{1,200}`).Draw(t, "target")
		f.want.Linkname = f.header.Linkname
	case tree.CharDevice, tree.BlockDevice:
		f.header.Typeflag = map[tree.Type]byte{tree.CharDevice: tar.TypeChar, tree.BlockDevice: tar.TypeBlock}[f.want.Type]
		f.want.Major, f.want.Minor = rapid.Uint32Range(0, 0o7777777).Draw(t, "major"), rapid.Uint32Range(0, 0o7777777).Draw(t, "minor")
		f.header.Devmajor, f.header.Devminor = int64(f.want.Major), int64(f.want.Minor)
	case tree.Fifo:
		f.header.Typeflag = tar.TypeFifo
	}
}

// drawBody draws a body of data and zeros in pieces that end near the
// boundaries of blocks.
func drawBody(t *rapid.T) []byte {
	var body []byte
	for range rapid.IntRange(0, 6).Draw(t, "pieces") {
		n := rapid.IntRange(0, 5).Draw(t, "blocks")*tree.BlockSize + rapid.IntRange(-2, 2).Draw(t, "more")
		fill := rapid.SampledFrom([]byte{0, 0, 1, 'x'}).Draw(t, "fill")
		body = append(body, bytes.Repeat([]byte{fill}, max(n, 0))...)
	}
	return body
}

// wantBody computes the location of a body at the offset of the spool, block
// by block, and its length in the spool.
func wantBody(body []byte, offset int64) (b tree.Body, length int64) {
	b = tree.Body{Offset: offset, Runs: []tree.Run{}}
	holes := false
	for at := 0; at < len(body); at += tree.BlockSize {
		block := body[at:min(at+tree.BlockSize, len(body))]
		if len(bytes.Trim(block, "\x00")) == 0 {
			holes = true
			continue
		}
		length += tree.BlockSize
		if last := len(b.Runs) - 1; last >= 0 && b.Runs[last].Offset+b.Runs[last].Length == int64(at) {
			b.Runs[last].Length += int64(len(block))
		} else {
			b.Runs = append(b.Runs, tree.Run{Offset: int64(at), Length: int64(len(block))})
		}
	}
	if !holes {
		b.Runs = nil
	}
	return b, length
}

func TestF8EntriesOfArchiveTarAreRead(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var files []testFile
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		offset := int64(0)
		for i := range rapid.IntRange(0, 8).Draw(rt, "files") {
			f := drawFile(rt, i)
			if f.want.Type == tree.Regular {
				var length int64
				f.want.Body, length = wantBody(f.body, offset)
				offset += length
			}
			if err := w.WriteHeader(&f.header); err != nil {
				rt.Fatal(err)
			}
			if _, err := w.Write(f.body); err != nil {
				rt.Fatal(err)
			}
			files = append(files, f)
		}
		if err := w.Close(); err != nil {
			rt.Fatal(err)
		}
		stored := rapid.SampledFrom([]func(testing.TB, []byte) []byte{
			gzipped, zstdCompressed, func(_ testing.TB, p []byte) []byte { return p },
		}).Draw(rt, "compression")(t, b.Bytes())
		u, err := unpack(t, stored, Options{DiffID: diffIDOf(b.Bytes())})
		if err != nil {
			rt.Fatal(err)
		}
		if len(u.entries) != len(files) || u.info.SpoolBytes != offset {
			rt.Fatalf("%d entries and %d bytes, want %d and %d", len(u.entries), u.info.SpoolBytes, len(files), offset)
		}
		for i, f := range files {
			got := u.entries[i]
			if fmt.Sprintf("%#v", got) != fmt.Sprintf("%#v", f.want) {
				rt.Errorf("got  %#v\nwant %#v", got, f.want)
			}
			if f.want.Type == tree.Regular && !bytes.Equal(u.spool.file(&got), f.body) {
				rt.Errorf("%q: content differs", got.Name)
			}
		}
	})
}

// TestSparseRecordsAgainstStandardLibrary compares the reader with archive/tar
// on inconsistent sparse records, which tar readers interpret in different
// ways. If this package accepts a file, both must read the same file.
func TestSparseRecordsAgainstStandardLibrary(t *testing.T) {
	checkAgainstStandardLibrary(t, func(rt *rapid.T) []byte {
		keyword := rapid.SampledFrom([]string{"major", "minor", "size", "realsize", "map", "offset", "numbytes", "numblocks", "name"})
		value := rapid.SampledFrom([]string{"0", "1", "2", "512", "600", "0,512", "0,0,600,0", "88,512", "other"})
		var lines []string
		if rapid.Bool().Draw(rt, "with a size") { // otherwise Unpack accepts hardly any
			lines = []string{"GNU.sparse.size=600"}
			keyword = rapid.SampledFrom([]string{"major", "minor", "map", "offset", "numbytes"})
		}
		for range rapid.IntRange(0, 4).Draw(rt, "records") {
			lines = append(lines, "GNU.sparse."+keyword.Draw(rt, "keyword")+"="+value.Draw(rt, "value"))
		}
		flag := rapid.SampledFrom([]byte{flagRegular, flagRegular, flagRegular, flagSparse}).Draw(rt, "flag")
		body := rapid.SampledFrom([]string{"", strings.Repeat("d", 512), oneByOne, oneByOne + strings.Repeat("d", 512)}).Draw(rt, "body")
		return append(paxHeader(lines...), withBody(rawHeader("f", flag, int64(len(body)), nil), body)...)
	})
}

// checkAgainstStandardLibrary adds the end marker to the archives of draw,
// unpacks them, and compares the accepted ones with archive/tar.
func checkAgainstStandardLibrary(t *testing.T, draw func(*rapid.T) []byte) {
	accepted := 0
	rapid.Check(t, func(rt *rapid.T) {
		plain := append(draw(rt), make([]byte, 2*blockSize)...)
		u, err := unpack(t, plain, Options{})
		if err != nil {
			return
		}
		accepted++
		compareWithStandardLibrary(rt, plain, u)
	})
	if accepted == 0 {
		t.Error("Unpack accepted none of the archives")
	}
}

// oneByOne is a sparse map of format 1.0 with one piece of 512 bytes.
var oneByOne = "1\n0\n512\n" + strings.Repeat("\x00", blockSize-8)

// drawText draws a text that has a special meaning in at least one field.
func drawText(t *rapid.T, label string) string {
	return rapid.SampledFrom([]string{
		"", "0", "1", "512", "-1", "+5", " 5", "5 ", "0x5", "1e3", "a", "dir/", "a/b", "/abs", "../x", "a\x00b", "\x00",
		"1.5", "-1.5", "1.", ".5", "-0.5", "9999999999", "007", "1_0", strings.Repeat("x/", 300),
	}).Draw(t, label)
}

// drawExtended draws an extended header, which applies to the next entry.
func drawExtended(t *rapid.T) []byte {
	if flag := rapid.SampledFrom([]byte{flagPax, flagLongName, flagLongLink}).Draw(t, "extended"); flag != flagPax {
		text := drawText(t, "text")
		return withBody(rawHeader("././@LongLink", flag, int64(len(text)), func(h []byte) { copy(h[257:], "ustar  \x00") }), text)
	}
	var lines []string
	keyword := rapid.SampledFrom([]string{
		"path", "linkpath", "size", "uid", "gid", "mtime", "atime", "comment", "uname", "SCHILY.devmajor", "SCHILY.xattr.user.a", "hdrcharset",
	})
	for range rapid.IntRange(0, 4).Draw(t, "records") {
		lines = append(lines, keyword.Draw(t, "keyword")+"="+drawText(t, "value"))
	}
	return paxHeader(lines...)
}

// drawHeader draws a header of any kind, with its body.
func drawHeader(t *rapid.T) []byte {
	body := rapid.SampledFrom([]string{"", strings.Repeat("d", 512), strings.Repeat("d", 513)}).Draw(t, "body")
	name := rapid.SampledFrom([]string{"f", "d/", "", "/a", "a\x00b", strings.Repeat("n", 100)}).Draw(t, "name")
	flag := rapid.SampledFrom([]byte("\x0001234567xgV")).Draw(t, "flag")
	number := rapid.SampledFrom([]string{
		"", "   7", "7 ", "0000007", "-1", "\x80\x00\x00\x00\x00\x00\x00\x09", "\xff\xff\xff\xff\xff\xff\xff\xff", "7\x007", "7 7", " \x00",
	})
	return withBody(rawHeader(name, flag, int64(len(body)), func(h []byte) {
		copy(h[257:265], rapid.SampledFrom([]string{"ustar\x0000", "ustar  \x00", "ustar\x00  ", "\x00\x00\x00\x00\x00\x00\x00\x00"}).Draw(t, "magic"))
		copy(h[157:257], rapid.SampledFrom([]string{"", "t", "t\x00u", strings.Repeat("l", 100)}).Draw(t, "link"))
		copy(h[345:500], rapid.SampledFrom([]string{
			"", "p", "p/", "0000000\x00", strings.Repeat("p", 155), "7 x", "7 \x00x", "7\x00x", "\xff\xff\xff\xec", "\x80\x00\x00\x00\x01", "p\xff", "00000000000 7 x", "p\u00e9",
		}).Draw(t, "prefix"))
		copy(h[508:512], rapid.SampledFrom([]string{"", "tar\x00"}).Draw(t, "trailer"))
		if rapid.IntRange(0, 2).Draw(t, "odd number") == 0 {
			at := rapid.SampledFrom([]int{100, 108, 116, 136, 329, 337}).Draw(t, "field")
			copy(h[at:at+8], strings.Repeat("\x00", 8))
			copy(h[at:at+8], number.Draw(t, "number"))
		}
	}), body)
}

// TestHeadersAgainstStandardLibrary compares the reader with archive/tar on
// headers of all kinds in any order. If this package accepts an archive, both
// must read the same entries.
func TestHeadersAgainstStandardLibrary(t *testing.T) {
	checkAgainstStandardLibrary(t, func(rt *rapid.T) (plain []byte) {
		for range rapid.IntRange(1, 3).Draw(rt, "entries") {
			for range rapid.IntRange(0, 2).Draw(rt, "extended headers") {
				plain = append(plain, drawExtended(rt)...)
			}
			plain = append(plain, drawHeader(rt)...)
		}
		return plain
	})
}
