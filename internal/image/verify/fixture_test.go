package verify_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/banger-vm/banger/internal/image/e2fs"
	ext4 "github.com/banger-vm/banger/internal/image/ext4/write"
	"github.com/banger-vm/banger/internal/image/layer"
	"github.com/banger-vm/banger/internal/image/tree"
	"github.com/banger-vm/banger/internal/image/verify"
)

var created = tree.Time{Sec: 1700000000, Nsec: 123456789}

// member is an entry of a layer and its body.
type member struct {
	tar.Header
	body string
}

func file(name, body string) member {
	return member{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, ModTime: time.Unix(1600000000, 987654321)}, body}
}

func other(kind byte, name, link string) member {
	return member{tar.Header{Typeflag: kind, Name: name, Linkname: link, Mode: 0o755, ModTime: time.Unix(1600000001, 5)}, ""}
}

// archive returns the stored layer of the members.
func archive(t testing.TB, compression string, members []member) []byte {
	t.Helper()
	var out bytes.Buffer
	var sink io.WriteCloser = struct {
		io.Writer
		io.Closer
	}{&out, io.NopCloser(nil)}
	switch compression {
	case "gzip":
		sink = gzip.NewWriter(&out)
	case "zstd":
		z, err := zstd.NewWriter(&out)
		if err != nil {
			t.Fatal(err)
		}
		sink = z
	}
	w := tar.NewWriter(sink)
	for _, m := range members {
		h := m.Header
		h.Format, h.Size = tar.FormatPAX, int64(len(m.body))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, m.body); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []io.Closer{w, sink} {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

// archives returns the stored layers, each with another compression.
func archives(t testing.TB, layers [][]member) (out [][]byte) {
	t.Helper()
	for i, members := range layers {
		out = append(out, archive(t, []string{"gzip", "zstd", "none"}[i%3], members))
	}
	return out
}

func stored(layers [][]byte) (out []verify.Layer) {
	for _, data := range layers {
		out = append(out, verify.Layer{Digest: "sha256:abc", Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(data)), nil
		}})
	}
	return out
}

// builders build disks with the code that verify must not share.
var builders = map[string]func(t testing.TB, m *tree.Merger, spools []io.ReaderAt, dir string) string{
	"native": native, "e2fsprogs": e2fsprogs,
}

func native(t testing.TB, m *tree.Merger, spools []io.ReaderAt, dir string) string {
	t.Helper()
	disk := filepath.Join(dir, "disk")
	f, err := os.Create(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	plan, err := ext4.Plan(m.Tree(), ext4.Options{Created: created, UUID: [16]byte{1}, HashSeed: [16]byte{2}})
	if err == nil {
		err = plan.Write(t.Context(), f, spools, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return disk
}

func e2fsprogs(t testing.TB, m *tree.Merger, spools []io.ReaderAt, dir string) string {
	t.Helper()
	for _, name := range []string{"mkfs.ext4", "debugfs"} {
		if _, err := exec.LookPath(name); err != nil {
			if _, err := os.Stat("/usr/sbin/" + name); err == nil {
				continue
			}
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	disk, scratch := filepath.Join(dir, "disk"), filepath.Join(dir, "scratch")
	if err := os.Mkdir(scratch, 0o700); err != nil {
		t.Fatal(err)
	}
	o := e2fs.Options{ScratchDir: scratch, Created: created, UUID: [16]byte{1}, HashSeed: [16]byte{2}}
	if _, err := e2fs.Build(t.Context(), m.Tree(), spools, disk, o, nil); err != nil {
		t.Fatal(err)
	}
	return disk
}

func build(t testing.TB, builder string, layers [][]byte, paths tree.Paths) []byte {
	t.Helper()
	dir := t.TempDir()
	m := tree.NewMerger(tree.Options{Created: created, Paths: paths})
	var spools []io.ReaderAt
	for _, data := range layers {
		spool, err := os.CreateTemp(dir, "spool")
		if err != nil {
			t.Fatal(err)
		}
		defer spool.Close()
		var toc bytes.Buffer
		if _, err := layer.Unpack(t.Context(), bytes.NewReader(data), spool, &toc, layer.Options{}); err != nil {
			t.Fatal(err)
		}
		merge(t, m, &toc)
		spools = append(spools, spool)
	}
	data, err := os.ReadFile(builders[builder](t, m, spools, dir))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func merge(t testing.TB, m *tree.Merger, toc io.Reader) {
	t.Helper()
	table, err := layer.OpenTable(toc)
	if err == nil {
		err = m.NextLayer()
	}
	var e tree.Entry
	for err == nil {
		if err = table.Next(&e); err == nil {
			err = m.Add(&e)
		}
	}
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
}

func verifyDisk(t testing.TB, layers [][]byte, disk []byte, o verify.Options) *verify.Report {
	t.Helper()
	o.Created = created
	report, err := verify.Verify(t.Context(), stored(layers), bytes.NewReader(disk), int64(len(disk)), o)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// baseline returns an image with every type of file and every way in which a
// layer changes a lower one.
func baseline() [][]member {
	capable := file("bin/ping", "a program")
	capable.PAXRecords = map[string]string{
		"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"SCHILY.xattr.user.note":           "needle of an attribute",
	}
	acl := other(tar.TypeDir, "acl/", "")
	acl.PAXRecords = map[string]string{"SCHILY.acl.default": "user::rwx,user:nobody:r-x:65534,group::r-x,mask::r-x,other::---"}
	setuid := file("bin/su", "another")
	setuid.Mode, setuid.Uid, setuid.Gid = 0o4755, 70000, 1<<31
	device := other(tar.TypeChar, "dev/zero", "")
	device.Devmajor, device.Devminor = 1, 5
	wide := other(tar.TypeBlock, "dev/wide", "")
	wide.Devmajor, wide.Devminor = 300, 70000
	old := file("old", "before the epoch")
	old.ModTime = time.Unix(-2, 1)
	late := file("late", "after 2446")
	late.ModTime = time.Unix(1<<40, 7)
	return [][]member{
		{
			other(tar.TypeDir, "./", ""), other(tar.TypeDir, "etc/", ""), file("etc/one", "needle of a content"),
			file("etc/gone", "x"), file("opaque/hidden", "x"), file("kept/by/implied", "x"), old, late,
			file("sparse", string(make([]byte, 100_000))+"end"), file("empty", ""), capable, setuid, device, wide, acl,
			other(tar.TypeSymlink, "etc/link", "/absolute"), other(tar.TypeSymlink, "etc/far", string(bytes.Repeat([]byte("far/"), 100))),
			other(tar.TypeLink, "hard", "etc/one"), other(tar.TypeLink, "hard link of a link", "etc/link"), other(tar.TypeFifo, "fifo", ""),
		},
		{
			file("opaque/shown", "y"), file("opaque/.wh..wh..opq", ""), file("etc/.wh.gone", ""), file("etc/one", "replaced"),
			file("kept/by/second", "y"), file(".wh.kept", ""),
		},
		{other(tar.TypeLink, "third", "hard"), other(tar.TypeDir, "etc/", "")},
	}
}
