package layer

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/image/tree"
)

// spool is an io.WriterAt in memory. It reports an error to the test unless
// all writes are of whole blocks and each starts at the end of the last one.
type spool struct {
	t    testing.TB
	data []byte
}

func (s *spool) WriteAt(p []byte, off int64) (int, error) {
	if off != int64(len(s.data)) || len(p)%tree.BlockSize != 0 {
		s.t.Errorf("write of %d bytes at %d, after %d", len(p), off, len(s.data))
	}
	s.data = append(s.data, p...)
	return len(p), nil
}

// file returns the content of a regular file, assembled from the spool.
func (s *spool) file(e *tree.Entry) []byte {
	out := make([]byte, e.Size)
	runs := e.Body.Runs
	if runs == nil && e.Size > 0 {
		runs = []tree.Run{{Length: e.Size}}
	}
	off := e.Body.Offset
	for _, r := range runs {
		copy(out[r.Offset:r.Offset+r.Length], s.data[off:])
		off += (r.Length + tree.BlockSize - 1) / tree.BlockSize * tree.BlockSize
	}
	return out
}

type unpacked struct {
	info    Info
	entries []tree.Entry
	spool   *spool
}

// unpack calls Unpack and reads the table back.
func unpack(t testing.TB, stored []byte, o Options) (unpacked, error) {
	u := unpacked{spool: &spool{t: t}}
	var table bytes.Buffer
	var err error
	u.info, err = Unpack(t.Context(), bytes.NewReader(stored), u.spool, &table, o)
	if err != nil {
		return u, err
	}
	if int64(len(u.spool.data)) != u.info.SpoolBytes {
		t.Errorf("spool has %d bytes, info has %d", len(u.spool.data), u.info.SpoolBytes)
	}
	tab, err := OpenTable(&table)
	if err != nil {
		t.Fatal(err)
	}
	for {
		var e tree.Entry
		err := tab.Next(&e)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		u.entries = append(u.entries, e)
	}
	if got := tab.Info(); fmt.Sprint(got) != fmt.Sprint(u.info) {
		t.Errorf("table has %+v, Unpack returned %+v", got, u.info)
	}
	return u, nil
}

func makeTar(t testing.TB, headers []tar.Header, bodies map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		h.Size = int64(len(bodies[h.Name]))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, bodies[h.Name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(t testing.TB, p []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(p); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zstdCompressed(t testing.TB, p []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(p, nil)
}

func newZstdWriter(t testing.TB, w io.Writer) *zstd.Encoder {
	t.Helper()
	z, err := zstd.NewWriter(w)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func diffIDOf(p []byte) digest.DiffID {
	return digest.DiffID(fmt.Sprintf("sha256:%x", sha256.Sum256(p)))
}

func TestF8HeadersAtFullWidth(t *testing.T) {
	long := strings.Repeat("d/", 120) + "file"
	headers := []tar.Header{
		{Name: "setuid", Typeflag: tar.TypeReg, Mode: 0o6755, Uid: 1 << 21, Gid: 4294967294, ModTime: time.Unix(-5, 123456789), Format: tar.FormatPAX},
		{Name: "caps", Typeflag: tar.TypeReg, Mode: 0o755, ModTime: time.Unix(1<<33, 1), Format: tar.FormatPAX, PAXRecords: map[string]string{
			"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00", "SCHILY.xattr.user.a": "1",
			"SCHILY.acl.access": "user::rw-,user:alice:r--:1000,group::r--,mask::rw-,other::---",
		}},
		{Name: "dev", Typeflag: tar.TypeChar, Mode: 0o1666, Devmajor: 300, Devminor: 70000, Format: tar.FormatGNU},
		{Name: "blk", Typeflag: tar.TypeBlock, Devmajor: 8, Devminor: 1},
		{Name: "pipe", Typeflag: tar.TypeFifo, Mode: 0o600},
		{Name: "dir/", Typeflag: tar.TypeDir, Mode: 0o2775},
		{Name: "ln", Typeflag: tar.TypeSymlink, Linkname: long, Format: tar.FormatPAX},
		{Name: "hard", Typeflag: tar.TypeLink, Linkname: "setuid"},
		{Name: long, Typeflag: tar.TypeReg, Format: tar.FormatGNU},
	}
	u, err := unpack(t, makeTar(t, headers, map[string]string{"setuid": "body"}), Options{})
	if err != nil {
		t.Fatal(err)
	}
	e := map[string]tree.Entry{}
	for _, entry := range u.entries {
		e[entry.Name] = entry
	}
	if s := e["setuid"]; s.Mode != 0o6755 || s.UID != 1<<21 || s.GID != 4294967294 || s.Mtime != (tree.Time{Sec: -5, Nsec: 123456789}) || string(u.spool.file(&s)) != "body" {
		t.Errorf("setuid is %+v", s)
	}
	wantACL := "\x02\x00\x00\x00" + "\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x04\x00\xe8\x03\x00\x00" +
		"\x04\x00\x04\x00\xff\xff\xff\xff" + "\x10\x00\x06\x00\xff\xff\xff\xff" + "\x20\x00\x00\x00\xff\xff\xff\xff"
	want := []tree.Xattr{
		{Name: "security.capability", Value: "\x01\x00\x00\x02\x00\x20\x00\x00"},
		{Name: "system.posix_acl_access", Value: wantACL}, {Name: "user.a", Value: "1"},
	}
	if c := e["caps"]; !slices.Equal(c.Xattrs, want) || c.Mtime != (tree.Time{Sec: 1 << 33, Nsec: 1}) {
		t.Errorf("caps is %+v", c)
	}
	if d := e["dev"]; d.Type != tree.CharDevice || d.Major != 300 || d.Minor != 70000 || d.Mode != 0o1666 {
		t.Errorf("dev is %+v", d)
	}
	if b := e["blk"]; b.Type != tree.BlockDevice || b.Major != 8 || b.Minor != 1 {
		t.Errorf("blk is %+v", b)
	}
	if e["pipe"].Type != tree.Fifo || e["dir/"].Type != tree.Directory || e["dir/"].Mode != 0o2775 {
		t.Errorf("pipe is %+v, dir is %+v", e["pipe"], e["dir/"])
	}
	if e["ln"].Linkname != long || e["hard"].Type != tree.HardLink || e["hard"].Linkname != "setuid" || e[long].Type != tree.Regular {
		t.Errorf("links are %+v, %+v, %+v", e["ln"], e["hard"], e[long])
	}
}

func TestCompressionIsRecognisedByContent(t *testing.T) {
	plain := makeTar(t, []tar.Header{{Name: "f", Typeflag: tar.TypeReg}}, map[string]string{"f": strings.Repeat("x", 5000)})
	skippable := append([]byte("\x50\x2a\x4d\x18\x03\x00\x00\x00abc"), zstdCompressed(t, plain)...)
	for name, c := range map[string]struct {
		stored []byte
		want   string
	}{
		"none": {plain, "none"}, "gzip": {gzipped(t, plain), "gzip"}, "zstd": {zstdCompressed(t, plain), "zstd"},
		"gzip in two members": {append(gzipped(t, plain[:700]), gzipped(t, plain[700:])...), "gzip"},
		"zstd in two frames":  {append(zstdCompressed(t, plain[:700]), zstdCompressed(t, plain[700:])...), "zstd"},
		"skippable frame":     {skippable, "zstd"},
	} {
		u, err := unpack(t, c.stored, Options{DiffID: diffIDOf(plain)})
		if err != nil || u.info.Compression != c.want || len(u.entries) != 1 || u.info.StreamBytes != int64(len(plain)) {
			t.Errorf("%s: %+v, %v", name, u.info, err)
		}
	}
	for name, magic := range map[string]string{"xz": "\xfd7zXZ\x00", "bzip2": "BZh9", "lz4": "\x04\x22\x4d\x18"} {
		if _, err := unpack(t, []byte(magic+"rest of it"), Options{}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHolesAndPacking(t *testing.T) {
	const b = tree.BlockSize
	zeros := func(n int) string { return strings.Repeat("\x00", n) }
	data := func(n int) string { return strings.Repeat("d", n) }
	cases := []struct {
		name, content string
		runs          []tree.Run
		spool         int64
	}{
		{"empty", "", nil, 0},
		{"short", "x", nil, b},
		{"one block", data(b), nil, b},
		{"one block and a byte", data(b + 1), nil, 2 * b},
		{"all zeros", zeros(3*b + 5), []tree.Run{}, 0},
		{"one zero byte", zeros(1), []tree.Run{}, 0},
		{"hole at the start", zeros(b) + data(b), []tree.Run{{Offset: b, Length: b}}, b},
		{"hole at the end", data(b) + zeros(b), []tree.Run{{Length: b}}, b},
		{"hole in the tail", data(b) + zeros(7), []tree.Run{{Length: b}}, b},
		{"hole between", data(2*b) + zeros(2*b) + data(b+9), []tree.Run{{Length: 2 * b}, {Offset: 4 * b, Length: b + 9}}, 4 * b},
		{"zeros across blocks but none whole", data(1) + zeros(2*b-2) + data(1), nil, 2 * b},
		{"large", strings.Repeat(data(b)+zeros(b), 600), nil, 600 * b},
	}
	var headers []tar.Header
	bodies := map[string]string{}
	for _, c := range cases {
		headers = append(headers, tar.Header{Name: c.name, Typeflag: tar.TypeReg})
		bodies[c.name] = c.content
	}
	u, err := unpack(t, makeTar(t, headers, bodies), Options{})
	if err != nil {
		t.Fatal(err)
	}
	offset := int64(0)
	for i, c := range cases {
		e := u.entries[i]
		if string(u.spool.file(&e)) != c.content {
			t.Errorf("%s: content differs", c.name)
		}
		if c.name != "large" && (!slices.Equal(e.Body.Runs, c.runs) || (e.Body.Runs == nil) != (c.runs == nil)) {
			t.Errorf("%s: runs are %v, want %v", c.name, e.Body.Runs, c.runs)
		}
		if e.Body.Offset != offset {
			t.Errorf("%s: offset %d, want %d", c.name, e.Body.Offset, offset)
		}
		offset += c.spool
	}
	if offset != u.info.SpoolBytes {
		t.Errorf("spool has %d bytes, want %d", u.info.SpoolBytes, offset)
	}
}

func TestDiffID(t *testing.T) {
	plain := makeTar(t, []tar.Header{{Name: "f", Typeflag: tar.TypeReg}}, nil)
	if _, err := unpack(t, gzipped(t, plain), Options{DiffID: diffIDOf([]byte("other"))}); err == nil || !strings.Contains(err.Error(), "diffID is "+string(diffIDOf(plain))) {
		t.Errorf("wrong diffID: %v", err)
	}
	bare := plain[:512]
	if _, err := unpack(t, bare, Options{DiffID: diffIDOf(bare)}); err != nil {
		t.Errorf("no marker, known diffID: %v", err)
	}
	if _, err := unpack(t, bare, Options{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("no marker, no diffID: %v", err)
	}
	if u, err := unpack(t, nil, Options{DiffID: diffIDOf(nil)}); err != nil || len(u.entries) != 0 {
		t.Errorf("empty layer: %v", err)
	}
}
