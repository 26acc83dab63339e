package tarcopy

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// hollow creates a file of the given size that has data at some offsets. It
// skips the test if the file system has no holes.
func hollow(t *testing.T, path string, size int64, data map[int64]string) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	must(t, f.Truncate(size))
	for at, s := range data {
		_, err := f.WriteAt([]byte(s), at)
		must(t, err)
	}
	must(t, f.Sync())
	if allocated(t, path) >= size {
		t.Skip("the file system of the test's folder has no holes")
	}
}

// allocated returns the bytes that a file takes.
func allocated(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	return st.Blocks * 512
}

// TestSparse copies files with holes. The copies have the same holes, and the
// stream is small.
func TestSparse(t *testing.T) {
	const mib = 1 << 20
	for name, row := range map[string]struct {
		size int64
		data map[int64]string
	}{
		"one hole":                  {64 * mib, nil},
		"data first":                {64 * mib, map[int64]string{0: "first"}},
		"data last":                 {64*mib + 5, map[int64]string{64 * mib: "last!"}},
		"data in between":           {64 * mib, map[int64]string{mib: strings.Repeat("x", 100000), 40 * mib: "y"}},
		"8 TiB":                     {8 << 40, map[int64]string{4 << 40: "middle"}},
		"shorter than a block":      {100, nil},
		"no holes":                  {5, map[int64]string{0: "whole"}},
		"an empty file":             {0, nil},
		"a hole of less than a map": {4096 + 8, map[int64]string{0: strings.Repeat("z", 4096)}},
	} {
		t.Run(name, func(t *testing.T) {
			from, to := filepath.Join(t.TempDir(), "disk"), t.TempDir()
			if row.size > 4096+8 {
				hollow(t, from, row.size, row.data)
			} else {
				must(t, os.WriteFile(from, []byte(row.data[0]), 0o600))
				must(t, os.Truncate(from, row.size))
			}
			stream := packed(t, from, PackOptions{Sparse: true})
			if len(stream) > mib {
				t.Errorf("a stream of %d bytes", len(stream))
			}
			if _, err := extract(t.Context(), stream, to, ExtractOptions{}); err != nil {
				t.Fatal(err)
			}
			copied := filepath.Join(to, "disk")
			info, err := os.Stat(copied)
			must(t, err)
			if info.Size() != row.size || allocated(t, copied) > allocated(t, from)+8192 {
				t.Errorf("the copy has %d bytes and takes %d, want %d and %d", info.Size(), allocated(t, copied), row.size, allocated(t, from))
			}
			if row.size <= 64*mib+5 {
				want, err := os.ReadFile(from)
				must(t, err)
				got, err := os.ReadFile(copied)
				must(t, err)
				if !bytes.Equal(got, want) {
					t.Error("the copy differs")
				}
				return
			}
			f, err := os.Open(copied)
			must(t, err)
			defer f.Close()
			for at, want := range row.data {
				got := make([]byte, len(want))
				if _, err := f.ReadAt(got, at); err != nil || string(got) != want {
					t.Errorf("at %d: %q, %v, want %q", at, got, err, want)
				}
			}
		})
	}
}

// TestSparseWithMetadata checks that a file with holes keeps its metadata and
// its other names.
func TestSparseWithMetadata(t *testing.T) {
	requireRoot(t)
	from, to := filepath.Join(t.TempDir(), "dir"), t.TempDir()
	must(t, os.Mkdir(from, 0o755))
	hollow(t, filepath.Join(from, "a"), 1<<20, map[int64]string{4096: "data"})
	must(t, os.Chown(filepath.Join(from, "a"), 12, 34))
	must(t, os.Chmod(filepath.Join(from, "a"), 0o640|os.ModeSetuid))
	must(t, os.Link(filepath.Join(from, "a"), filepath.Join(from, "b")))
	if _, err := extract(t.Context(), packed(t, from, PackOptions{Sparse: true}), to, ExtractOptions{Owners: true, Trusted: true}); err != nil {
		t.Fatal(err)
	}
	compare(t, describe(t, filepath.Join(to, "dir")), describe(t, from))
}

// TestManyExtents checks a file with more extents than a map holds.
func TestManyExtents(t *testing.T) {
	from, to := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	hollow(t, from, (maxExtents+100)*8192, map[int64]string{0: "x"})
	f, err := os.OpenFile(from, os.O_WRONLY, 0)
	must(t, err)
	defer f.Close()
	for i := range int64(maxExtents + 50) {
		_, err := f.WriteAt([]byte{byte(i), 1}, i*8192)
		must(t, err)
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(Pack(t.Context(), w, from, PackOptions{Sparse: true})) }()
	if _, err := Extract(t.Context(), r, to, ExtractOptions{}); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(from)
	must(t, err)
	got, err := os.ReadFile(filepath.Join(to, "disk"))
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Error("the copy differs")
	}
}

// TestExpand checks that any program reads an expanded stream.
func TestExpand(t *testing.T) {
	from := filepath.Join(t.TempDir(), "dir")
	must(t, os.Mkdir(from, 0o755))
	hollow(t, filepath.Join(from, "disk"), 3<<20, map[int64]string{1 << 20: "data"})
	must(t, os.WriteFile(filepath.Join(from, "plain"), []byte("plain"), 0o600))
	var out bytes.Buffer
	must(t, Expand(t.Context(), &out, bytes.NewReader(packed(t, from, PackOptions{Sparse: true}))))
	if want := packed(t, from, PackOptions{}); !bytes.Equal(out.Bytes(), want) {
		t.Errorf("%d bytes, which differ from the %d of a stream without sparse entries", out.Len(), len(want))
	}
	for _, raw := range []string{"garbage", sparse(64, 1, 0, 8).body} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		must(t, w.WriteHeader(&tar.Header{Name: "x", Typeflag: typeSparse, Size: int64(len(raw))}))
		_, err := w.Write([]byte(raw))
		must(t, errors.Join(err, w.Close()))
		if err := Expand(t.Context(), io.Discard, &b); err == nil || !strings.Contains(err.Error(), `copy "x"`) {
			t.Errorf("%q: %v", raw, err)
		}
	}
}

// TestGNUSparse checks that a trusted stream of GNU tar keeps its holes.
func TestGNUSparse(t *testing.T) {
	program, err := exec.LookPath("tar")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir, to := t.TempDir(), t.TempDir()
	hollow(t, filepath.Join(dir, "disk"), 64<<20+3, map[int64]string{8<<20 + 1: "data"})
	for _, format := range []string{"gnu", "posix"} {
		stream, err := exec.CommandContext(t.Context(), program, "-C", dir, "--format="+format, "-Scf", "-", "disk").Output()
		must(t, err)
		if _, err := extract(t.Context(), stream, to, ExtractOptions{Trusted: true}); err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join(dir, "disk"))
		must(t, err)
		got, err := os.ReadFile(filepath.Join(to, "disk"))
		must(t, err)
		if n := allocated(t, filepath.Join(to, "disk")); !bytes.Equal(got, want) || n > 1<<20 {
			t.Errorf("format %s: the copy is equal: %v, and takes %d bytes", format, bytes.Equal(got, want), n)
		}
	}
}
