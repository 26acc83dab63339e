package layer

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/image/tree"
)

// rawHeader returns a header block. If set is not nil, rawHeader calls it to
// change the block before it computes the checksum.
func rawHeader(name string, flag byte, size int64, set func(h []byte)) []byte {
	h := make([]byte, blockSize)
	copy(h, name)
	for _, f := range []struct {
		at int
		n  int64
	}{{100, 0o644}, {108, 0}, {116, 0}} {
		copy(h[f.at:], fmt.Sprintf("%07o", f.n))
	}
	copy(h[124:], fmt.Sprintf("%011o", size))
	copy(h[136:], fmt.Sprintf("%011o", 0))
	h[156] = flag
	copy(h[257:], "ustar\x0000")
	if set != nil {
		set(h)
	}
	setChecksum(h)
	return h
}

func setChecksum(h []byte) {
	copy(h[148:], "        ")
	sum := 0
	for _, b := range h[:blockSize] {
		sum += int(b)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
}

func withBody(header []byte, body string) []byte {
	out := append(bytes.Clone(header), body...)
	return append(out, make([]byte, padding(int64(len(body))))...)
}

func pax(name string, lines ...string) []byte {
	return append(paxHeader(lines...), rawHeader(name, flagRegular, 0, nil)...)
}

func paxHeader(lines ...string) []byte {
	body := ""
	for _, l := range lines {
		n := len(l) + 3
		for len(fmt.Sprint(n))+len(l)+2 != n {
			n++
		}
		body += fmt.Sprintf("%d %s\n", n, l)
	}
	return withBody(rawHeader("pax", flagPax, int64(len(body)), nil), body)
}

// sparseHeader returns the header of an old GNU sparse entry. The numbers are
// pairs of offset and length, then the size of the file.
func sparseHeader(entries ...int64) []byte {
	return rawHeader("s", flagSparse, 0, func(h []byte) {
		copy(h[257:], "ustar  \x00")
		for i, n := range entries {
			at := 386 + 12*i
			if i == len(entries)-1 {
				at = 483
			}
			binary.BigEndian.PutUint64(h[at+4:], uint64(n))
			h[at] = 0x80
		}
	})
}

// sparseFile returns a sparse entry with its stored pieces, which consist of
// the letter s.
func sparseFile(entries ...int64) []byte {
	stored := int64(0)
	for i := 1; i < len(entries); i += 2 {
		stored += entries[i]
	}
	h := sparseHeader(entries...)
	copy(h[124:], fmt.Sprintf("%011o\x00", stored))
	setChecksum(h)
	return withBody(h, strings.Repeat("s", int(stored)))
}

// TestBytesAfterTheEnd unpacks layers with bytes after the end of the tar or of
// the gzip stream. The entries are those before the end, and a warning has the
// number of bytes.
func TestBytesAfterTheEnd(t *testing.T) {
	good := makeTar(t, []tar.Header{{Name: "f", Typeflag: tar.TypeReg}}, map[string]string{"f": "content"})
	hidden := makeTar(t, []tar.Header{{Name: "hidden", Typeflag: tar.TypeReg}}, map[string]string{"hidden": "x"})
	junk := bytes.Repeat([]byte("JUNK"), 300)
	zeros := make([]byte, 2<<20)
	for _, c := range []struct {
		name   string
		stored []byte
		want   string // in the warning; "" for none
	}{
		{"junk", slices.Concat(good, junk), "1200 bytes after the end of the tar"},
		{"a second archive", slices.Concat(good, hidden), fmt.Sprintf("%d bytes after the end of the tar", len(hidden))},
		{"a byte", append(bytes.Clone(good), 'x'), "1 bytes after the end of the tar"},
		{"a record of zeros", slices.Concat(good, zeros), ""},
		{"zeros and a byte", slices.Concat(good, zeros, []byte("x")), fmt.Sprintf("%d bytes after the end of the tar", len(zeros)+1)},
		{"a second archive in a second gzip member", slices.Concat(gzipped(t, good), gzipped(t, hidden)), "after the end of the tar"},
		{"zeros after gzip", slices.Concat(gzipped(t, good), zeros[:512]), "512 zeros after the compressed layer"},
		{"many zeros after gzip", slices.Concat(gzipped(t, good), zeros), fmt.Sprintf("%d zeros after the compressed layer", len(zeros))},
	} {
		t.Run(c.name, func(t *testing.T) {
			var table bytes.Buffer
			info, err := Unpack(t.Context(), bytes.NewReader(c.stored), &spool{t: t}, &table, Options{})
			if err != nil || info.Entries != 1 {
				t.Fatalf("%d entries, %v", info.Entries, err)
			}
			if got := strings.Join(info.Warnings, "\n"); !strings.Contains(got, c.want) || (got == "") != (c.want == "") {
				t.Errorf("warnings %q, want %q", got, c.want)
			}
		})
	}
}

func TestHostileStreams(t *testing.T) {
	end := make([]byte, 2*blockSize)
	good := makeTar(t, []tar.Header{{Name: "f", Typeflag: tar.TypeReg}, {Name: "g", Typeflag: tar.TypeReg}},
		map[string]string{"f": strings.Repeat("content ", 10000), "g": "g"})
	flip := func(p []byte, at int) []byte {
		p = bytes.Clone(p)
		p[at] ^= 0x10
		return p
	}
	gz, zst := gzipped(t, good), zstdCompressed(t, good)
	cases := []struct {
		name   string
		stored []byte
		want   string // part of the error
	}{
		{"truncated gzip", gz[:len(gz)/2], "unexpected EOF"},
		{"gzip without its trailer", gz[:len(gz)-8], "unexpected EOF"},
		{"bit flip in gzip data", flip(gz, len(gz)/2), "gzip|flate|tar|checksum|diffID"},
		{"bit flip in the gzip checksum", flip(gz, len(gz)-6), "checksum"},
		{"bit flip in the gzip header", flip(gz, 2), "gzip"},
		{"truncated zstd", zst[:len(zst)/2], "unexpected EOF"},
		{"bit flip in zstd data", flip(zst, len(zst)/2), "zstd|checksum|corrupt|invalid|CRC|magic|tar|size|EOF|literal"},
		{"trailing garbage after gzip", append(bytes.Clone(gz), "garbage, not a member"...), "gzip: invalid header|trailing data"},
		{"trailing zeros and garbage after gzip", append(bytes.Clone(gz), 0, 0, 1), "gzip: invalid header|trailing data|EOF"},
		{"trailing zeros after zstd", append(bytes.Clone(zst), make([]byte, 512)...), "magic|trailing"},
		{"trailing garbage after zstd", append(bytes.Clone(zst), "garbage!"...), "magic|trailing"},
		{"truncated within a body", good[:9000], "unexpected EOF"},
		{"truncated within a header", good[:200], "unexpected EOF"},
		{"truncated after an entry", good[:len(good)-2*blockSize], "unexpected EOF"},
		{"single block of zeros between entries", append(make([]byte, blockSize), good...), "block of zeros"},
		{"not a tar", bytes.Repeat([]byte("hello world "), 100), "checksum"},
		{"bit flip in a header", flip(good, 110), "checksum"},
		{"size beyond the end", rawHeader("f", flagRegular, 1<<30, nil), "unexpected EOF"},
		{"size in base 256, negative", rawHeader("f", flagRegular, 0, func(h []byte) { copy(h[124:], bytes.Repeat([]byte{0xff}, 12)) }), "size -1 is out of range"},
		{"size in base 256, enormous", rawHeader("f", flagRegular, 0, func(h []byte) { copy(h[124:], "\x80\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff") }), "out of range"},
		{"size above any file system", rawHeader("f", flagRegular, 0, func(h []byte) { copy(h[124:], "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff") }), "out of range"},
		{"size that is not a number", rawHeader("f", flagRegular, 0, func(h []byte) { copy(h[124:], "9zz") }), "octal number"},
		{"negative uid", rawHeader("f", flagRegular, 0, func(h []byte) { copy(h[108:], bytes.Repeat([]byte{0xff}, 8)) }), "uid -1"},
		{"uid above 32 bits", pax("f", "uid=4294967296"), "4294967296"},
		{"unknown type", rawHeader("f", 'Q', 0, nil), "type flag 'Q'"},
		{"PAX length past the end", withBody(rawHeader("p", flagPax, 12, nil), "999 path=abc"), "length is not valid"},
		{"PAX length of zero", withBody(rawHeader("p", flagPax, 9, nil), "0 path=a\n"), "length is not valid"},
		{"PAX record without a value", withBody(rawHeader("p", flagPax, 7, nil), "7 path\n"), "KEY=VALUE"},
		{"PAX header of 2 MiB", rawHeader("p", flagPax, 2<<20, nil), "extended tar header"},
		{"PAX header without an entry", append(withBody(rawHeader("p", flagPax, 9, nil), "9 path=a\n"), end...), "extended header"},
		{"PAX time that is invalid", pax("f", "mtime=12.x"), "time"},
		{"NUL in a name", pax("f", "path=a\x00b"), "NUL"},
		{"NUL in a link target", pax("f", "linkpath=a\x00b"), "NUL"},
		{"name of 5000 bytes", pax("f", "path="+strings.Repeat("n", 5000)), "bytes in a path"},
		{"xattr above the limit", pax("f", "SCHILY.xattr.user.a="+strings.Repeat("v", 65537)), "extended attribute"},
		{"xattrs above the limit together", pax("f", manyXattrs(17)...), "bytes"},
		{"xattr without a name", pax("f", "SCHILY.xattr.=v"), "name of the extended attribute"},
		{"xattr with a long name", pax("f", "SCHILY.xattr."+strings.Repeat("n", 256)+"=v"), "name of the extended attribute"},
		{"libarchive xattr that is not base 64", pax("f", "LIBARCHIVE.xattr.user.a=?"), "value of the extended attribute"},
		{"libarchive xattr with a broken name", pax("f", "LIBARCHIVE.xattr.user%zz=AAAA"), "name of the extended attribute"},
		{"ACL of a name without a number", pax("f", "SCHILY.acl.access=user::rw-,user:bob:r--,group::r--,mask::r--,other::r--"), `"bob" is no numeric id`},
		{"ACL without a mask", pax("f", "SCHILY.acl.access=user::rw-,user:1:r--,group::r--,other::r--"), "mask"},
		{"ACL without other", pax("f", "SCHILY.acl.access=user::rw-,group::r--"), "user::, group:: and other:: are required once each"},
		{"ACL with a user twice", pax("f", "SCHILY.acl.access=user::rw-,user:1:r--,user:1:r--,group::r--,mask::r--,other::r--"), "two entries"},
		{"ACL of garbage", pax("f", "SCHILY.acl.default=what"), "ACL entry"},
		{"sparse pieces that overlap", sparseHeader(0, 512, 100, 10, 4096), "overlap"},
		{"sparse piece outside of the file", sparseHeader(0, 5000, 4096), "outside"},
		{"sparse piece that overflows", sparseHeader(math.MaxInt64-5, 100, 4096), "outside"},
		{"sparse file of 8 EiB", sparseHeader(0, 0, math.MaxInt64), "file size"},
		{"sparse data that is not stored", sparseHeader(0, 512, 4096), "512 bytes of data, 0 are stored"},
		{"sparse map of odd length", pax("f", "GNU.sparse.size=10", "GNU.sparse.map=1"), "odd count"},
		{"sparse map without a size", pax("f", "GNU.sparse.map=0,0"), `file size ""`},
		{"sparse map of words", pax("f", "GNU.sparse.size=10", "GNU.sparse.map=a,b"), "no number"},
		{"sparse format of the future", pax("f", "GNU.sparse.major=2", "GNU.sparse.minor=0"), `format "2.0"`},
		{"sparse format 1 without a minor version", pax("f", "GNU.sparse.major=1", "GNU.sparse.size=10"), `format "1."`},
		{"volume label of two sizes", append(paxHeader("size=1"), rawHeader("label", flagVolume, 0, nil)...), "volume label"},
		{"sparse file without a map", pax("f", "GNU.sparse.size=9000"), "no map"},
		{"sparse file with two maps", pax("f", "GNU.sparse.size=10", "GNU.sparse.map=0,0", "GNU.sparse.map=0,0"), "twice"},
		{"sparse file of two formats", pax("f", "GNU.sparse.size=10", "GNU.sparse.map=0,0", "GNU.sparse.offset=0"), "alternate"},
		{"sparse map of lengths", pax("f", "GNU.sparse.size=10", "GNU.sparse.numbytes=0"), "alternate"},
		{"sparse file of two sizes", pax("f", "GNU.sparse.size=10", "GNU.sparse.realsize=11", "GNU.sparse.map=0,0"), "as 10 and as 11"},
		{"sparse map 1.0 in a record", pax("f", "GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.size=10", "GNU.sparse.map=0,0"), "before the data"},
		{"sparse map 1.0 without data", pax("f", "GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=10"), "longer than the entry"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := unpack(t, c.stored, Options{})
			if err == nil {
				t.Fatal("Unpack accepted the stream")
			}
			for part := range strings.SplitSeq(c.want, "|") {
				if strings.Contains(err.Error(), part) {
					return
				}
			}
			t.Errorf("got %v, want one of %s", err, c.want)
		})
	}
}

func manyXattrs(n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("SCHILY.xattr.user.%d=%s", i, strings.Repeat("v", 65000)))
	}
	return out
}

// zeroReader reads as its head followed by n zero bytes.
type zeroReader struct {
	head []byte
	n    int64
}

func (z *zeroReader) Read(p []byte) (int, error) {
	if len(z.head) > 0 {
		n := copy(p, z.head)
		z.head = z.head[n:]
		return n, nil
	}
	if z.n <= 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), z.n)
	z.n -= n
	clear(p[:n])
	return int(n), nil
}

func TestDecompressionBombStopsAtTheLimit(t *testing.T) {
	bomb := zstdBomb(t, 256<<20)
	_, err := unpack(t, bomb, Options{Limits: Limits{Bytes: NewBudget(20 << 20)}})
	limit, ok := errors.AsType[*tree.LimitError](err)
	if !ok || limit.Option != "--max-size" {
		t.Errorf("got %v", err)
	}
}

// zstdBomb returns a compressed tar of some kilobytes with one file of n zeros.
func zstdBomb(t *testing.T, n int64) []byte {
	t.Helper()
	var b bytes.Buffer
	pipeR, pipeW := io.Pipe()
	go func() {
		_, err := io.Copy(pipeW, &zeroReader{head: rawHeader("bomb", flagRegular, n, nil), n: n + 2*blockSize})
		pipeW.CloseWithError(err)
	}()
	w := newZstdWriter(t, &b)
	if _, err := io.Copy(w, pipeR); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestEntryLimit(t *testing.T) {
	var headers []tar.Header
	for i := range 10 {
		headers = append(headers, tar.Header{Name: fmt.Sprint(i), Typeflag: tar.TypeReg})
	}
	_, err := unpack(t, makeTar(t, headers, nil), Options{Limits: Limits{Entries: 9}})
	if _, ok := errors.AsType[*tree.LimitError](err); !ok {
		t.Errorf("got %v", err)
	}
}

// TestErrorOfTheSourceIsReturned checks that the decoders do not hide the
// source's error. Otherwise a network error looks like a damaged layer.
func TestErrorOfTheSourceIsReturned(t *testing.T) {
	cause := errors.New("connection reset")
	good := makeTar(t, []tar.Header{{Name: "f", Typeflag: tar.TypeReg}}, map[string]string{"f": strings.Repeat("0123456789", 30000)})
	for name, stored := range map[string][]byte{"gzip": gzipped(t, good), "zstd": zstdCompressed(t, good), "none": good} {
		r := io.MultiReader(bytes.NewReader(stored[:len(stored)/2]), &failingReader{cause})
		var table bytes.Buffer
		if _, err := Unpack(t.Context(), r, &spool{t: t}, &table, Options{}); !errors.Is(err, cause) {
			t.Errorf("%s: %v", name, err)
		}
		// The source may also return the error in place of the final EOF.
		r = io.MultiReader(bytes.NewReader(stored), &failingReader{cause})
		if _, err := Unpack(t.Context(), r, &spool{t: t}, &table, Options{}); !errors.Is(err, cause) {
			t.Errorf("%s at the end: %v", name, err)
		}
	}
}

type failingReader struct{ err error }

func (f *failingReader) Read([]byte) (int, error) { return 0, f.err }

type failingSpool struct{}

func (failingSpool) WriteAt([]byte, int64) (int, error) { return 0, errors.New("disk full") }

func TestErrorOfTheSpoolIsReturned(t *testing.T) {
	good := makeTar(t, []tar.Header{{Name: "f", Typeflag: tar.TypeReg}}, map[string]string{"f": strings.Repeat("x", 5<<20)})
	if _, err := Unpack(t.Context(), bytes.NewReader(good), failingSpool{}, io.Discard, Options{}); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("got %v", err)
	}
}
