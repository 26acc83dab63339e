package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/banger-vm/banger/internal/image/tree"
)

func seeds(t testing.TB) [][]byte {
	all := makeTar(t, []tar.Header{
		{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "d/f", Typeflag: tar.TypeReg, Mode: 0o644, PAXRecords: map[string]string{"SCHILY.xattr.user.a": "1"}, Format: tar.FormatPAX},
		{Name: strings.Repeat("long/", 40), Typeflag: tar.TypeDir, Format: tar.FormatGNU},
		{Name: "s", Typeflag: tar.TypeSymlink, Linkname: strings.Repeat("t", 120)},
		{Name: "h", Typeflag: tar.TypeLink, Linkname: "d/f"},
		{Name: "c", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3},
	}, map[string]string{"d/f": "content"})
	out := [][]byte{
		all, gzipped(t, all), zstdCompressed(t, all),
		append(sparseHeader(0, 0, 8192), make([]byte, 1024)...),
		append(sparseFile(0, 512, 4096, 512, 9000), make([]byte, 1024)...),
		append(withBody(rawHeader("dir/", flagOldRegular, 0, nil), ""), make([]byte, 1024)...),
		append(rawHeader("link", flagHardLink, 700, nil), make([]byte, 1024)...),
		append(pax("f", "GNU.sparse.size=9000", "GNU.sparse.map=0,0", "mtime=-1.5"), make([]byte, 1024)...),
	}
	if len(out) == 0 {
		t.Fatal("no seeds")
	}
	return out
}

// FuzzUnpack checks that no input crashes Unpack, makes it hang, or results in
// an unreadable table.
func FuzzUnpack(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, stored []byte) {
		fixChecksums(stored)
		u, err := unpack(t, stored, Options{Limits: Limits{Bytes: NewBudget(1 << 20)}})
		if err == nil && u.info.Entries != int64(len(u.entries)) {
			t.Errorf("%d entries, info has %d", len(u.entries), u.info.Entries)
		}
	})
}

// FuzzTarAgainstStandardLibrary checks that this package and archive/tar read
// the same entries if both accept the whole archive.
func FuzzTarAgainstStandardLibrary(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, plain []byte) {
		fixChecksums(plain)
		if compression(plain) != "none" {
			return
		}
		// The diffID makes Unpack accept archives without an end marker.
		u, err := unpack(t, plain, Options{DiffID: diffIDOf(plain), Limits: Limits{Bytes: NewBudget(1 << 20)}})
		if err != nil {
			return
		}
		compareWithStandardLibrary(t, plain, u)
	})
}

// fixChecksums corrects the checksums of mutated headers, so that the parser
// reads their other fields.
func fixChecksums(plain []byte) {
	for ; len(plain) >= blockSize; plain = plain[blockSize:] {
		if string(plain[257:262]) == "ustar" {
			setChecksum(plain[:blockSize])
		}
	}
}

func compareWithStandardLibrary(t rapid.TB, plain []byte, u unpacked) {
	r := tar.NewReader(bytes.NewReader(plain))
	for i := 0; ; i++ {
		h, err := r.Next()
		for err == nil && (h.Typeflag == tar.TypeXGlobalHeader || h.Typeflag == flagVolume) {
			if h.Typeflag == tar.TypeXGlobalHeader {
				return // the standard library does not apply them
			}
			h, err = r.Next()
		}
		if errors.Is(err, io.EOF) {
			if i != len(u.entries) {
				t.Errorf("standard library finds %d entries, this package %d", i, len(u.entries))
			}
			return
		}
		if err != nil {
			return // archive/tar is stricter in some fields that this package does not use
		}
		if i >= len(u.entries) {
			t.Fatalf("entry %d, %q, is missing", i, h.Name)
		}
		compareEntry(t, h, r, &u.entries[i], u.spool)
	}
}

func compareEntry(t rapid.TB, h *tar.Header, r io.Reader, e *tree.Entry, s *spool) {
	if h.Name != e.Name || h.Linkname != e.Linkname && e.Linkname != "" || int64(e.Mode) != h.Mode&0o7777 {
		t.Errorf("standard library has %q -> %q mode %o, this package %q -> %q mode %o", h.Name, h.Linkname, h.Mode, e.Name, e.Linkname, e.Mode)
	}
	if h.PAXRecords["mtime"] == "" && (h.ModTime.Unix() != e.Mtime.Sec || h.ModTime.Nanosecond() != int(e.Mtime.Nsec)) {
		t.Errorf("%q: standard library has time %v, this package %+v", h.Name, h.ModTime, e.Mtime)
	}
	if e.Type != tree.Regular || h.Size > 1<<20 {
		return
	}
	want, err := io.ReadAll(r)
	if err != nil {
		return
	}
	if e.Size > 1<<20 || !bytes.Equal(s.file(e), want) {
		t.Errorf("%q: content differs", h.Name)
	}
}
