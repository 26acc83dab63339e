package verify

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/image/layer"
	"github.com/banger-vm/banger/internal/image/tree"
)

// TestF8HeadersAgree reads headers of all formats with this package and with
// package layer, which has a tar reader of its own. The entries must be equal.
func TestF8HeadersAgree(t *testing.T) {
	at := time.Unix(1600000000, 123456789)
	records := func(kv ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = kv[i+1]
		}
		return m
	}
	global := func(kv ...string) tar.Header {
		return tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header", PAXRecords: records(kv...)}
	}
	plain := tar.Header{Typeflag: tar.TypeReg, Name: "file", Mode: 0o644, ModTime: at}
	with := func(change func(*tar.Header)) tar.Header {
		h := plain
		change(&h)
		return h
	}
	for _, row := range []struct {
		name    string
		headers []tar.Header
	}{
		{"USTAR", []tar.Header{with(func(h *tar.Header) { h.Format, h.ModTime = tar.FormatUSTAR, time.Unix(5, 0) })}},
		{"GNU with wide numbers", []tar.Header{with(func(h *tar.Header) {
			h.Format, h.Uid, h.Gid, h.ModTime = tar.FormatGNU, 1<<31, 1<<32-1, time.Unix(-7, 0)
		})}},
		{"GNU with a long name", []tar.Header{with(func(h *tar.Header) {
			h.Format, h.ModTime, h.Name = tar.FormatGNU, time.Unix(5, 0), strings.Repeat("long/", 50)+"x"
		})}},
		{"PAX", []tar.Header{with(func(h *tar.Header) { h.Format, h.Uid, h.Name = tar.FormatPAX, 1<<30, strings.Repeat("é/", 90)+"x" })}},
		{"before the epoch", []tar.Header{with(func(h *tar.Header) { h.Format, h.ModTime = tar.FormatPAX, time.Unix(-3, 1) })}},
		{"all mode bits", []tar.Header{with(func(h *tar.Header) { h.Mode = 0o107777 })}},
		{"symlink", []tar.Header{{Typeflag: tar.TypeSymlink, Name: "s", Linkname: "to/there", Mode: 0o777}}},
		{"hard link", []tar.Header{plain, {Typeflag: tar.TypeLink, Name: "h", Linkname: "file", Mode: 0o600}}},
		{"device", []tar.Header{{Typeflag: tar.TypeChar, Name: "c", Devmajor: 4095, Devminor: 1048575}}},
		{"directory and fifo", []tar.Header{{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o1777}, {Typeflag: tar.TypeFifo, Name: "f"}}},
		{"attributes of star", []tar.Header{with(func(h *tar.Header) {
			h.PAXRecords = records("SCHILY.xattr.user.b", "2", "SCHILY.xattr.user.a", "\x01\n=", "SCHILY.xattr.user.empty", "")
		})}},
		{"attributes of bsdtar", []tar.Header{with(func(h *tar.Header) {
			h.PAXRecords = records("LIBARCHIVE.xattr.user.a%20b", "AQID", "SCHILY.xattr.user.c", "raw", "LIBARCHIVE.xattr.user.c", "AAAA")
		})}},
		{"SELinux", []tar.Header{with(func(h *tar.Header) { h.PAXRecords = records("RHT.security.selinux", "system_u:object_r:bin_t:s0") })}},
		{"access control lists", []tar.Header{with(func(h *tar.Header) {
			h.PAXRecords = records(
				"SCHILY.acl.access", "user::rw-,group::r--,other::r--,user:joe:rwx:1000,group:7:r-x,mask::rwx",
				"SCHILY.acl.default", "user::rwx\ngroup::---\nother::--x #effective")
		})}},
		{"a blank access control list", []tar.Header{with(func(h *tar.Header) { h.PAXRecords = records("SCHILY.acl.access", " ") })}},
		{"global records", []tar.Header{
			global("comment", "0123456789abcdef", "uid", "77"),
			{Typeflag: tar.TypeReg, Name: "one"}, with(func(h *tar.Header) { h.Format, h.Uid = tar.FormatPAX, 1<<22 }),
		}},
		{"a global time", []tar.Header{global("mtime", "1234567890"), {Typeflag: tar.TypeReg, Name: "one", Format: tar.FormatUSTAR}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			data := archive(t, row.headers)
			want, err := byLayer(t, data)
			if err != nil {
				t.Fatal(err)
			}
			var budget atomic.Int64
			budget.Store(1 << 20)
			open := func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
			entries, err := Layer{Open: open}.read(t.Context(), &budget, &windows{limit: DefaultMaxWindow})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range entries {
				got = append(got, line(e))
			}
			if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
				t.Errorf("verify:\n%s\nlayer:\n%s", g, w)
			}
		})
	}
}

func archive(t *testing.T, headers []tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range headers {
		body := ""
		if h.Typeflag == tar.TypeReg {
			body = "body of " + h.Name
			h.Size = int64(len(body))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// byLayer reads a tar with package layer.
func byLayer(t *testing.T, data []byte) ([]string, error) {
	t.Helper()
	spool, err := os.CreateTemp(t.TempDir(), "spool")
	if err != nil {
		return nil, err
	}
	defer spool.Close()
	var toc bytes.Buffer
	if _, err := layer.Unpack(t.Context(), bytes.NewReader(data), spool, &toc, layer.Options{}); err != nil {
		return nil, err
	}
	table, err := layer.OpenTable(&toc)
	var out []string
	for err == nil {
		var e tree.Entry
		if err = table.Next(&e); err != nil {
			break
		}
		mine := entry{name: e.Name, metadata: metadata{
			typ: e.Type, mode: e.Mode, uid: e.UID, gid: e.GID, mtime: e.Mtime, size: e.Size, xattrs: e.Xattrs,
		}}
		switch e.Type {
		case tree.Symlink:
			mine.target = e.Linkname
		case tree.HardLink:
			mine.link = e.Linkname
		case tree.CharDevice, tree.BlockDevice:
			mine.major, mine.minor = e.Major, e.Minor
		case tree.Regular:
			body := make([]byte, e.Size)
			if _, err := spool.ReadAt(body, e.Body.Offset); err != nil {
				return nil, err
			}
			mine.sum = sha256.Sum256(body)
		}
		out = append(out, line(mine))
	}
	if len(out) == 0 {
		t.Fatal("no entries")
	}
	return out, nil
}

func line(e entry) string {
	if e.typ != tree.HardLink {
		e.link = ""
	}
	return fmt.Sprintf("%q %q %v %o %d:%d %v %d:%d %d %s %q %q", e.name, e.link, e.typ, e.mode, e.uid, e.gid, e.mtime,
		e.major, e.minor, e.size, hex.EncodeToString(e.sum[:]), e.target, e.xattrs)
}
