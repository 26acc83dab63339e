package layer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/image/tree"
)

// unpackOne adds the end marker to a plain tar, unpacks it and returns its
// only entry.
func unpackOne(t *testing.T, plain []byte) (tree.Entry, unpacked) {
	t.Helper()
	u, err := unpack(t, append(plain, make([]byte, 2*blockSize)...), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(u.entries) != 1 {
		t.Fatalf("%d entries: %+v", len(u.entries), u.entries)
	}
	return u.entries[0], u
}

func TestF8TimesAreExact(t *testing.T) {
	for text, want := range map[string]tree.Time{
		"0":                      {},
		"1.5":                    {Sec: 1, Nsec: 500_000_000},
		"1.000000001":            {Sec: 1, Nsec: 1},
		"1.0000000019":           {Sec: 1, Nsec: 1},
		".25":                    {Nsec: 250_000_000},
		"12.":                    {Sec: 12},
		"-1":                     {Sec: -1},
		"-0.25":                  {Sec: -1, Nsec: 750_000_000},
		"-1.5":                   {Sec: -2, Nsec: 500_000_000},
		"-1.0000000001":          {Sec: -2, Nsec: 999_999_999},
		"-2208988800.999999999":  {Sec: -2208988801, Nsec: 1},
		"9223372036854775807.1":  {Sec: 1<<63 - 1, Nsec: 100_000_000},
		"1700000000.12345678999": {Sec: 1700000000, Nsec: 123456789},
	} {
		if e, _ := unpackOne(t, pax("f", "mtime="+text)); e.Mtime != want {
			t.Errorf("%s is %+v, want %+v", text, e.Mtime, want)
		}
	}
	for _, text := range []string{"", "-", ".", "-.", "x", "1.x", "1.-5", "1e3", "+", "--5", "-+5", "+5", "9223372036854775808", "-9223372036854775808.5"} {
		if got, err := parseTime(text); err == nil {
			t.Errorf("%q was accepted as %+v", text, got)
		}
	}
}

func TestF8NumbersInBase256(t *testing.T) {
	e, _ := unpackOne(t, rawHeader("f", flagChar, 0, func(h []byte) {
		copy(h[108:], "\x80\x00\x00\x00\xff\xff\xff\xfe")
		copy(h[116:], "\x80\x00\x00\x00\x80\x00\x00\x00")
		copy(h[136:], "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfb")
		copy(h[329:], "\x80\x00\x00\x00\x00\x01\x00\x00")
		copy(h[337:], "\x80\x00\x00\x00\xff\xff\xff\xff")
	}))
	if e.UID != 1<<32-2 || e.GID != 1<<31 || e.Mtime.Sec != -5 || e.Major != 1<<16 || e.Minor != 1<<32-1 {
		t.Errorf("got %+v", e)
	}
}

func TestF8AttributesInAllFormats(t *testing.T) {
	e, _ := unpackOne(t, pax("f",
		"LIBARCHIVE.xattr.user.both=d3Jvbmc", "SCHILY.xattr.user.both=raw",
		"LIBARCHIVE.xattr.user.a%20name%3d=AAEC/w==",
		"SCHILY.xattr.user.empty=", "SCHILY.xattr.user.lines=a\nb=c\x00d",
		"SCHILY.xattr.user.twice=1", "SCHILY.xattr.user.twice=2",
		"RHT.security.selinux=system_u:object_r:bin_t:s0",
	))
	want := []tree.Xattr{
		{Name: "security.selinux", Value: "system_u:object_r:bin_t:s0\x00"},
		{Name: "user.a name=", Value: "\x00\x01\x02\xff"}, {Name: "user.both", Value: "raw"},
		{Name: "user.empty"}, {Name: "user.lines", Value: "a\nb=c\x00d"}, {Name: "user.twice", Value: "2"},
	}
	if !slices.Equal(e.Xattrs, want) {
		t.Errorf("got %q", e.Xattrs)
	}
}

func TestF8ACLsInAllFormats(t *testing.T) {
	const none = "\xff\xff\xff\xff"
	want := "\x02\x00\x00\x00" + "\x01\x00\x07\x00" + none + "\x02\x00\x05\x00\xf6\x01\x00\x00" + "\x02\x00\x06\x00\xe8\x03\x00\x00" +
		"\x04\x00\x05\x00" + none + "\x08\x00\x04\x00\x64\x00\x00\x00" + "\x10\x00\x07\x00" + none + "\x20\x00\x00\x00" + none
	for name, text := range map[string]string{
		"long, as star writes": "user::rwx,user:joe:rw-:1000,user:lisa:r-x:502,group::r-x,group:crew:r--:100,mask::rwx,other::---",
		"numbers for names":    "user::rwx,user:1000:rw-,user:502:r-x,group::r-x,group:100:r--,mask::rwx,other::---",
		"lines, as getfacl":    "user::rwx\nuser:1000:rw-\nuser:502:r-x\t#effective:r-x\ngroup::r-x\ngroup:100:r--\nmask::rwx\nother::---\n",
		"short":                "u::rwx,u:1000:rw-,u:502:r-x,g::r-x,g:100:r--,m::rwx,o::---",
		"two fields":           "u::rwx,u:1000:rw,u:502:rx,g::rx,g:100:r,mask:rwx,other:---",
		"any order":            "other::---,mask::rwx,group:100:r--,user:1000:rw-,group::r-x,user:502:r-x,user::rwx",
	} {
		for key, attribute := range map[string]string{"access": "system.posix_acl_access", "default": "system.posix_acl_default"} {
			e, _ := unpackOne(t, pax("f", "SCHILY.acl."+key+"="+text))
			if len(e.Xattrs) != 1 || e.Xattrs[0] != (tree.Xattr{Name: attribute, Value: want}) {
				t.Errorf("%s, %s: %q", name, key, e.Xattrs)
			}
		}
	}
	e, _ := unpackOne(t, pax("f", "SCHILY.acl.access=user::rwx,group::---,other::---", "SCHILY.xattr.system.posix_acl_access=binary", "SCHILY.acl.default="))
	if !slices.Equal(e.Xattrs, []tree.Xattr{{Name: "system.posix_acl_access", Value: "binary"}}) {
		t.Errorf("the raw attribute must win: %q", e.Xattrs)
	}
}

func TestNamesInAllFormats(t *testing.T) {
	gnu := func(h []byte) { copy(h[257:], "ustar  \x00") }
	long := strings.Repeat("n", 300)
	for name, c := range map[string]struct {
		plain []byte
		want  string
	}{
		"prefix":                    {rawHeader("name", flagRegular, 0, func(h []byte) { copy(h[345:], "a/prefix") }), "a/prefix/name"},
		"name that fills its field": {rawHeader(strings.Repeat("f", 100), flagRegular, 0, nil), strings.Repeat("f", 100)},
		"star has a shorter prefix": {rawHeader("name", flagRegular, 0, func(h []byte) {
			copy(h[345:], strings.Repeat("p", 131)+"no prefix")
			copy(h[508:], "tar\x00")
		}), strings.Repeat("p", 131) + "/name"},
		"GNU has times there": {rawHeader("name", flagRegular, 0, func(h []byte) { gnu(h); copy(h[345:], "12345670123") }), "name"},
		"GNU with a prefix, of archive/tar before Go 1.8": {rawHeader("name", flagRegular, 0, func(h []byte) {
			gnu(h)
			copy(h[345:], strings.Repeat("dir/", 20)+"dir")
		}), strings.Repeat("dir/", 21) + "name"},
		"GNU with a prefix that begins with a number": {rawHeader("name", flagRegular, 0, func(h []byte) {
			gnu(h)
			copy(h[345:], "7 wonders/of the world")
		}), "7 wonders/of the world/name"},
		"GNU with invalid times": {rawHeader("name", flagRegular, 0, func(h []byte) { gnu(h); copy(h[345:], "\xff\xff\xff\xec") }), "name"},

		"GNU long name":              {append(withBody(rawHeader("././@LongLink", flagLongName, 301, gnu), long+"\x00"), rawHeader("nnn", flagRegular, 0, gnu)...), long},
		"GNU long name without NUL":  {append(withBody(rawHeader("././@LongLink", flagLongName, 300, gnu), long), rawHeader("nnn", flagRegular, 0, gnu)...), long},
		"PAX":                        {pax("short", "path="+long), long},
		"PAX, empty":                 {pax("short", "path="), "short"},
		"PAX that is not UTF-8":      {pax("short", "hdrcharset=BINARY", "path=\xff\xfe"), "\xff\xfe"},
		"before POSIX, no magic":     {rawHeader("old", flagOldRegular, 0, func(h []byte) { clear(h[257:265]); copy(h[345:], "junk") }), "old"},
		"newline and quote":          {rawHeader("a\nb\"c", flagRegular, 0, nil), "a\nb\"c"},
		"sparse name beside a path":  {pax("x", "GNU.sparse.name=real", "GNU.sparse.size=0", "GNU.sparse.map=0,0", "path=GNUSparseFile.0/real"), "real"},
		"two PAX headers, last wins": {append(pax("one", "path=two")[:2*blockSize], pax("one", "path=three")...), "three"},
	} {
		if e, _ := unpackOne(t, c.plain); e.Name != c.want {
			t.Errorf("%s: %q, want %q", name, e.Name, c.want)
		}
	}
}

// TestOnlyFilesHaveBodies checks that the reader ignores the size of entries
// other than files. Writers give links the size of their target and
// directories their size on the host, and store no body. A reader that skips
// a body there skips the next entries.
func TestOnlyFilesHaveBodies(t *testing.T) {
	var plain []byte
	for _, flag := range []byte{flagHardLink, flagSymlink, flagChar, flagBlock, flagDirectory, flagFifo} {
		plain = append(plain, rawHeader(string(flag), flag, 4096, func(h []byte) { copy(h[157:], "target") })...)
	}
	plain = append(plain, rawHeader("old dir/", flagOldRegular, 4096, nil)...)
	plain = append(plain, withBody(rawHeader("file", flagContiguous, 4, nil), "body")...)
	plain = append(plain, withBody(rawHeader("slash/", flagRegular, 5, nil), "slash")...)
	u, err := unpack(t, append(plain, make([]byte, 2*blockSize)...), Options{})
	if err != nil || len(u.entries) != 9 {
		t.Fatalf("%d entries, %v", len(u.entries), err)
	}
	for i, e := range u.entries[:7] {
		if e.Size != 0 || e.Type == tree.Regular {
			t.Errorf("entry %d is %+v", i, e)
		}
	}
	if u.entries[6].Type != tree.Directory || string(u.spool.file(&u.entries[7])) != "body" || string(u.spool.file(&u.entries[8])) != "slash" {
		t.Errorf("got %+v", u.entries[6:])
	}
}

func TestGlobalRecords(t *testing.T) {
	global := func(lines ...string) []byte {
		h := paxHeader(lines...)
		h[156] = flagPaxGlobal
		setChecksum(h)
		return h
	}
	plain := slices.Concat(
		global("comment=0123456789abcdef", "uid=7", "mtime=1.5"), rawHeader("a", flagRegular, 0, nil),
		global("uid=8"), pax("b", "mtime=2"), pax("c", "uid="), global("uid="), rawHeader("d", flagRegular, 0, nil), make([]byte, 2*blockSize))
	u, err := unpack(t, plain, Options{})
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, e := range u.entries {
		got += fmt.Sprint(e.Name, " ", e.UID, " ", e.Mtime, "; ")
	}
	if want := "a 7 {1 500000000}; b 8 {2 0}; c 0 {1 500000000}; d 0 {1 500000000}; "; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, line := range []string{"path=x", "linkpath=x", "size=1", "SCHILY.xattr.user.a=b", "LIBARCHIVE.xattr.user.a=b", "SCHILY.acl.access=x", "GNU.sparse.map=1"} {
		if _, err := unpack(t, global(line), Options{}); err == nil || !strings.Contains(err.Error(), "global PAX record") {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// TestEmptyValueCancelsEarlierRecords checks the rule of pax(1) that a record
// with an empty value cancels the earlier records of its keyword.
func TestEmptyValueCancelsEarlierRecords(t *testing.T) {
	e, _ := unpackOne(t, pax("f", "path=other", "uid=7", "SCHILY.xattr.user.a=1", "path=", "uid=", "SCHILY.xattr.user.a=", "gid=", "gid=5"))
	if e.Name != "f" || e.UID != 0 || e.GID != 5 || !slices.Equal(e.Xattrs, []tree.Xattr{{Name: "user.a"}}) {
		t.Errorf("got %+v", e)
	}
}

func TestExtendedHeadersOfVolumeLabelDoNotApplyToNextEntry(t *testing.T) {
	long := withBody(rawHeader("././@LongLink", flagLongName, 5, func(h []byte) { copy(h[257:], "ustar  \x00") }), "other")
	e, _ := unpackOne(t, slices.Concat(long, paxHeader("uid=7"), rawHeader("label", flagVolume, 0, nil), rawHeader("f", flagRegular, 0, nil)))
	if e.Name != "f" || e.UID != 0 {
		t.Errorf("got %+v", e)
	}
}

func TestVolumeLabelsAreCounted(t *testing.T) {
	var plain []byte
	for i := range 30 {
		plain = append(plain, rawHeader(fmt.Sprintf("label %d", i), flagVolume, 0, nil)...)
	}
	_, u := unpackOne(t, append(plain, rawHeader("f", flagRegular, 0, nil)...))
	if w := u.info.Warnings; len(w) != 1 || !strings.HasPrefix(w[0], "30 volume labels") || strings.Contains(w[0], "label 10") {
		t.Errorf("warnings are %q", w)
	}
}

// TestArchiveWithoutEnd checks that Unpack accepts an archive without its end
// marker or its last padding if the diffID is known, as docker does. Any
// other missing part is an error.
func TestArchiveWithoutEnd(t *testing.T) {
	whole := makeTar(t, []tar.Header{{Name: "f", Typeflag: tar.TypeReg}}, map[string]string{"f": strings.Repeat("x", 700)})
	sparse := append(sparseHeader(0, 0, 8192), make([]byte, blockSize)...)
	sparse[482] = 1
	setChecksum(sparse)
	for name, c := range map[string]struct {
		plain    []byte
		accepted bool
	}{
		"no marker":                           {whole[:3*blockSize], true},
		"one block of zeros":                  {whole[:4*blockSize], true},
		"no padding":                          {whole[:blockSize+700], true},
		"half of the padding":                 {whole[:blockSize+900], true},
		"truncated body":                      {whole[:blockSize+699], false},
		"half a header":                       {whole[:100], false},
		"one and a half blocks of zeros":      {whole[:4*blockSize+100], false},
		"sparse map without its extension":    {sparse[:blockSize], false},
		"PAX header alone":                    {pax("f", "path=g")[:2*blockSize], false},
		"missing sparse map 1.0":              {pax("f", "GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=1", "size=512"), false},
		"half of the padding of a PAX header": {pax("f", "path=g")[:blockSize+100], false},
	} {
		_, err := unpack(t, c.plain, Options{DiffID: diffIDOf(c.plain)})
		if (err == nil) != c.accepted {
			t.Errorf("%s: %v", name, err)
		}
		// Without a diffID only the marker shows that the archive is complete.
		// Some writers write one block of it.
		if _, err := unpack(t, c.plain, Options{}); err == nil && name != "one block of zeros" {
			t.Errorf("%s, no diffID: accepted", name)
		}
	}
}

func TestBodiesAreWrittenInLargePieces(t *testing.T) {
	var headers []tar.Header
	bodies := map[string]string{}
	for i := range 2000 {
		name := fmt.Sprint(i)
		headers = append(headers, tar.Header{Name: name, Typeflag: tar.TypeReg})
		bodies[name] = strings.Repeat("x", i)
	}
	var writes countingSpool
	if _, err := Unpack(t.Context(), bytes.NewReader(makeTar(t, headers, bodies)), &writes, io.Discard, Options{}); err != nil {
		t.Fatal(err)
	}
	for i, n := range writes[:len(writes)-1] {
		if n < 1<<20 {
			t.Errorf("write %d is of %d bytes", i, n)
		}
	}
}

type countingSpool []int

func (c *countingSpool) WriteAt(p []byte, _ int64) (int, error) {
	*c = append(*c, len(p))
	return len(p), nil
}

// TestSignedChecksum checks the sum of the bytes as signed numbers, which some
// old writers stored.
func TestSignedChecksum(t *testing.T) {
	plain := rawHeader("na\xefve", flagRegular, 0, nil)
	sum := int64(0)
	for i, b := range plain {
		if i >= 148 && i < 156 {
			b = ' '
		}
		sum += int64(int8(b))
	}
	copy(plain[148:], fmt.Sprintf("%06o\x00 ", sum))
	if e, _ := unpackOne(t, plain); e.Name != "na\xefve" {
		t.Errorf("got %q", e.Name)
	}
	copy(plain[148:], fmt.Sprintf("%06o\x00 ", sum+1))
	if _, err := unpack(t, plain, Options{}); err == nil {
		t.Error("a wrong checksum was accepted")
	}
}
