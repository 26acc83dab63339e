package verify_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/image/tree"
	"github.com/banger-vm/banger/internal/image/verify"
)

func TestVerifyAcceptsBuiltDisks(t *testing.T) {
	for builder := range builders {
		t.Run(builder, func(t *testing.T) {
			layers := archives(t, baseline())
			report := verifyDisk(t, layers, build(t, builder, layers, tree.Rooted), verify.Options{})
			for _, d := range report.Differences {
				t.Error(d)
			}
			for _, p := range report.Problems {
				t.Error(p)
			}
			const inodes = 23 // with the root; one inode has three names, another has two
			if report.Inodes != inodes || report.Bytes != 100_074 {
				t.Errorf("%d inodes and %d bytes", report.Inodes, report.Bytes)
			}
		})
	}
}

// TestVerifyScoped verifies an image with unsafe paths in scoped mode, and
// checks that the default mode refuses it.
func TestVerifyScoped(t *testing.T) {
	layers := archives(t, [][]member{
		{other(tar.TypeDir, "usr/bin/", ""), other(tar.TypeSymlink, "bin", "../../usr/bin")},
		{file("/bin/../bin/tool", "tool"), other(tar.TypeLink, "/tool", "/bin/tool")},
	})
	disk := build(t, "native", layers, tree.Scoped)
	if report := verifyDisk(t, layers, disk, verify.Options{Paths: tree.Scoped}); !report.OK() {
		t.Errorf("%+v", report)
	}
	_, err := verify.Verify(t.Context(), stored(layers), bytes.NewReader(disk), int64(len(disk)), verify.Options{})
	if err == nil || !strings.Contains(err.Error(), "unsafe symlink") {
		t.Errorf("rooted: %v", err)
	}
}

// TestVerifyFindsEachDifference verifies a disk against images that differ from
// it in one value.
func TestVerifyFindsEachDifference(t *testing.T) {
	disk := build(t, "native", archives(t, baseline()), tree.Rooted)
	for _, row := range []struct {
		path, field string
		change      func(layers [][]member) [][]member
	}{
		{"etc/one", verify.FieldContent, edit("etc/one", func(m *member) { m.body = strings.ToUpper(m.body) })},
		{"etc/one", verify.FieldSize, edit("etc/one", func(m *member) { m.body += "x" })},
		{"sparse", verify.FieldContent, edit("sparse", func(m *member) { m.body = "x" + m.body[1:] })},
		{"bin/su", verify.FieldMode, edit("bin/su", func(m *member) { m.Mode = 0o755 })},
		{"bin/su", verify.FieldUID, edit("bin/su", func(m *member) { m.Uid = 70001 })},
		{"bin/su", verify.FieldGID, edit("bin/su", func(m *member) { m.Gid = 0 })},
		{"old", verify.FieldMtime, edit("old", func(m *member) { m.ModTime = time.Unix(-2, 2) })},
		{"late", verify.FieldMtime, edit("late", func(m *member) { m.ModTime = time.Unix(15032385534, 0) })},
		{"etc", verify.FieldMtime, edit("etc/", func(m *member) { m.ModTime = time.Unix(0, 0) })},
		{"dev/zero", verify.FieldDevice, edit("dev/zero", func(m *member) { m.Devminor = 6 })},
		{"dev/wide", verify.FieldDevice, edit("dev/wide", func(m *member) { m.Devmajor = 301 })},
		{"dev/zero", verify.FieldType, edit("dev/zero", func(m *member) { m.Typeflag = tar.TypeBlock })},
		{"etc/far", verify.FieldTarget, edit("etc/far", func(m *member) { m.Linkname = "near" })},
		{"fifo", verify.FieldType, edit("fifo", func(m *member) { m.Typeflag = tar.TypeReg })},
		{"bin/ping", "xattr user.note", record("bin/ping", "SCHILY.xattr.user.note", "another")},
		{"bin/ping", "xattr user.more", record("bin/ping", "SCHILY.xattr.user.more", "")},
		{"bin/ping", "xattr security.capability", edit("bin/ping", func(m *member) { m.PAXRecords = nil })},
		{"acl", "xattr system.posix_acl_default", record("acl/", "SCHILY.acl.default", "user::rwx,group::r-x,other::r-x")},
		{"opaque/shown", verify.FieldName, edit("opaque/shown", func(m *member) { m.Name = "opaque/renamed" })},
		{"opaque/hidden", verify.FieldName, edit("opaque/.wh..wh..opq", func(m *member) { m.Name = "opaque/.wh..wh.other" })},
		{"etc/gone", verify.FieldName, edit("etc/.wh.gone", func(m *member) { m.Name = "etc/.wh.none" })},
		{"third", verify.FieldLinks, edit("third", func(m *member) { *m = file("third", "needle of a content") })},
		{"empty", verify.FieldLinks, edit("empty", func(m *member) { m.Typeflag, m.Linkname = tar.TypeLink, "sparse" })},
	} {
		t.Run(row.path+" "+row.field, func(t *testing.T) {
			report := verifyDisk(t, archives(t, row.change(baseline())), disk, verify.Options{})
			if len(report.Problems) > 0 {
				t.Error(report.Problems)
			}
			if !slices.ContainsFunc(report.Differences, func(d verify.Difference) bool {
				return d.Path == row.path && d.Field == row.field && d.Want != d.Got
			}) {
				t.Errorf("found %v", report.Differences)
			}
		})
	}
}

// edit returns a function that changes the last entry with the name.
func edit(name string, change func(*member)) func([][]member) [][]member {
	return func(layers [][]member) [][]member {
		for _, members := range slices.Backward(layers) {
			for i := range slices.Backward(members) {
				if members[i].Name == name {
					change(&members[i])
					return layers
				}
			}
		}
		panic("no entry " + name)
	}
}

// record returns a function that sets a PAX record of the last entry with the
// name.
func record(name, key, value string) func([][]member) [][]member {
	return edit(name, func(m *member) {
		if m.PAXRecords == nil {
			m.PAXRecords = map[string]string{}
		}
		m.PAXRecords[key] = value
	})
}

// TestVerifyFindsFlippedBit flips one bit of a disk in each kind of structure.
func TestVerifyFindsFlippedBit(t *testing.T) {
	for builder := range builders {
		t.Run(builder, func(t *testing.T) { flipOneBit(t, builder) })
	}
}

func flipOneBit(t *testing.T, builder string) {
	layers := archives(t, baseline())
	disk := build(t, builder, layers, tree.Rooted)
	find := func(text string) int64 { return int64(bytes.Index(disk, []byte(text))) }
	group := disk[4096:]
	block := func(at int) int64 { return int64(binary.LittleEndian.Uint32(group[at:])) * 4096 }
	mtime := binary.LittleEndian.AppendUint32(nil, 1600000000)
	for _, row := range []struct {
		name string
		at   int64
		want string // in a difference or a problem
	}{
		{"content", find("needle of a content"), "hard"},
		{"inode", find(string(mtime)), "checksum"},
		{"attribute", find("needle of an attribute"), "bin/ping"},
		{"target", find("far/far/"), "etc/far"},
		{"directory", find("hard link of a link"), "checksum"},
		{"superblock", 1024 + 0x88, "superblock"},
		{"descriptor", 4096 + 0x0c, "descriptor"},
		{"block bitmap", block(0) + 100, "block bitmap"},
		{"inode bitmap", block(4) + 100, "inode bitmap"},
		{"another inode", block(8) + 20*256, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			if row.at <= 0 {
				t.Fatal("not on the disk")
			}
			bad := bytes.Clone(disk)
			bad[row.at] ^= 4
			report := verifyDisk(t, layers, bad, verify.Options{})
			text := strings.Join(report.Problems, "\n")
			for _, d := range report.Differences {
				text += "\n" + d.String()
			}
			if report.OK() || !strings.Contains(text, row.want) {
				t.Errorf("found %q", text)
			}
		})
	}
}

// TestVerifyBytesAfterTheEnd verifies layers with bytes after their end, which the
// builders leave out.
func TestVerifyBytesAfterTheEnd(t *testing.T) {
	members, hidden := []member{file("a", "content")}, []member{file("hidden", "x")}
	for name, data := range map[string][]byte{
		"junk after the tar":             append(archive(t, "none", members), "JUNK"...),
		"a second archive":               append(archive(t, "none", members), archive(t, "none", hidden)...),
		"a second archive, gzip":         append(archive(t, "gzip", members), archive(t, "gzip", hidden)...),
		"zeros after gzip":               append(archive(t, "gzip", members), make([]byte, 512)...),
		"an empty member and many zeros": append(append(archive(t, "gzip", members), archive(t, "gzip", nil)...), make([]byte, 1<<20)...),
	} {
		t.Run(name, func(t *testing.T) {
			layers := [][]byte{data}
			if report := verifyDisk(t, layers, build(t, "native", layers, tree.Rooted), verify.Options{}); !report.OK() || report.Inodes != 2 {
				t.Errorf("%+v", report)
			}
		})
	}
	bad := [][]byte{append(archive(t, "gzip", members), 0, 0, 1)}
	if _, err := verify.Verify(t.Context(), stored(bad), bytes.NewReader(nil), 0, verify.Options{}); err == nil {
		t.Error("text after a gzip stream was accepted")
	}
}

// TestVerifyZstdWindows verifies layers whose zstd frames have large windows.
func TestVerifyZstdWindows(t *testing.T) {
	// A frame of RFC 8878 with one raw block and a window of 2^log bytes.
	frame := func(log int, data []byte) []byte {
		block := len(data)<<3 | 1
		return append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0, byte(log-10) << 3, byte(block), byte(block >> 8), byte(block >> 16)}, data...)
	}
	plain := archive(t, "none", []member{file("a", "content")})
	disk := build(t, "native", [][]byte{plain}, tree.Rooted)
	for _, row := range []struct {
		log    int
		limit  uint64
		accept bool
	}{{27, 0, true}, {29, 0, true}, {30, 0, false}, {31, 2 << 30, true}, {26, 1 << 20, false}} {
		layers := [][]byte{frame(row.log, plain)}
		report, err := verify.Verify(t.Context(), stored(layers), bytes.NewReader(disk), int64(len(disk)), verify.Options{Created: created, MaxWindow: row.limit})
		if (err == nil) != row.accept || err == nil && !report.OK() {
			t.Errorf("2^%d bytes, limit %d: %+v, %v", row.log, row.limit, report, err)
		}
	}
}

// TestVerifyReportsBadLayers verifies invalid layers. Verify must return an
// error, because the fault is not on the disk.
func TestVerifyReportsBadLayers(t *testing.T) {
	good := archive(t, "gzip", []member{file("a", "b")})
	link := func(name, target string) []byte {
		return archive(t, "none", []member{other(tar.TypeLink, name, target)})
	}
	for _, row := range []struct {
		name string
		data []byte
		want string
	}{
		{"truncated", good[:len(good)-10], "EOF"},
		{"not a tar", bytes.Repeat([]byte("no tar"), 1000), "tar"},
		{"a name that climbs", archive(t, "none", []member{file("a/../../b", "")}), "parent directory"},
		{"an absolute name", archive(t, "none", []member{file("/a", "")}), "absolute"},
		{"a symlink that climbs", archive(t, "none", []member{other(tar.TypeSymlink, "a", "../b")}), "unsafe symlink"},
		{"a link to a missing file", link("a", "b"), "does not exist"},
		{"a link to a directory", link("a", "."), "is a directory"},
		{"through a symlink", archive(t, "none", []member{other(tar.TypeSymlink, "a", "b"), file("a/c", "")}), "passes through a symlink"},
		{"through a file", archive(t, "none", []member{file("a", ""), file("a/c", "")}), "not a directory"},
		{"a whiteout of an empty name", archive(t, "none", []member{file("a/.wh.", "")}), "reserved"},
		{"an owner of 33 bits", archive(t, "none", []member{{tar.Header{Typeflag: tar.TypeReg, Name: "a", Uid: 1 << 32}, ""}}), "uid"},
		{"too many bytes", archive(t, "zstd", []member{file("a", string(make([]byte, 2<<20)))}), "more bytes than allowed"},
		{"too many inodes", archive(t, "none", []member{file("1/2/3/4/5/6/7/8/9/10/11", "")}), "too many inodes"},
		{"an ACL without numbers", archive(t, "none", []member{{tar.Header{
			Typeflag: tar.TypeReg, Name: "a", PAXRecords: map[string]string{"SCHILY.acl.access": "user:joe:rwx"}}, ""}}), "ACL"},
	} {
		t.Run(row.name, func(t *testing.T) {
			o := verify.Options{Paths: tree.Strict, MaxBytes: 1 << 20, MaxInodes: 10}
			report, err := verify.Verify(t.Context(), stored([][]byte{row.data}), bytes.NewReader(nil), 0, o)
			if err == nil || report != nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, want %q", err, row.want)
			}
		})
	}
}

// TestVerifyReadsLayersToTheEnd checks that Verify returns the error of a source
// that checks its digest at the end.
func TestVerifyReadsLayersToTheEnd(t *testing.T) {
	for _, compression := range []string{"none", "gzip", "zstd"} {
		bad := errors.New("digest does not match")
		data := archive(t, compression, []member{file("a", "b")})
		l := verify.Layer{Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(bytes.NewReader(data), failing{bad})), nil
		}}
		_, err := verify.Verify(t.Context(), []verify.Layer{l}, bytes.NewReader(nil), 0, verify.Options{})
		if !errors.Is(err, bad) {
			t.Errorf("%s: error %v", compression, err)
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestVerifyFileThatIsNotADisk verifies a file of zeros.
func TestVerifyFileThatIsNotADisk(t *testing.T) {
	layers := archives(t, baseline())
	report := verifyDisk(t, layers, make([]byte, 1<<20), verify.Options{})
	if report.OK() || !strings.Contains(report.Problems[0], "not an ext4 file system") {
		t.Errorf("%+v", report)
	}
}

func TestVerifyReturnsErrorOfContext(t *testing.T) {
	layers := archives(t, baseline())
	disk := build(t, "native", layers, tree.Rooted)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := verify.Verify(ctx, stored(layers), bytes.NewReader(disk), int64(len(disk)), verify.Options{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
