package sparse

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// layout is a file given by its size and the pieces of data in it.
type layout struct {
	name   string
	size   int64
	pieces map[int64]string
}

var layouts = []layout{
	{"empty", 0, nil},
	{"no data", 1<<20 + 5, nil},
	{"data at the start", 1 << 20, map[int64]string{0: "start"}},
	{"data at the very end", 3<<20 + 1, map[int64]string{3 << 20: "e"}},
	{"data all over", 8 << 20, map[int64]string{10: "a", 1 << 20: "b", 5<<20 - 1: "across a boundary"}},
	{"no holes", 6, map[int64]string{0: "abcdef"}},
}

func (l layout) write(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "src"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(l.size); err != nil {
		t.Fatal(err)
	}
	for off, s := range l.pieces {
		if _, err := f.WriteAt([]byte(s), off); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func TestCopyAndDigest(t *testing.T) {
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			src := l.write(t)
			dst, err := os.Create(filepath.Join(t.TempDir(), "dst"))
			if err != nil {
				t.Fatal(err)
			}
			defer dst.Close()
			if err := Copy(t.Context(), dst, src); err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(src.Name())
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(dst.Name())
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("copy differs, %v", err)
			}
			d, err := Digest(t.Context(), src)
			if sum := fmt.Sprintf("sha256:%x", sha256.Sum256(want)); err != nil || string(d) != sum {
				t.Errorf("digest %s, %v; want %s", d, err, sum)
			}
		})
	}
}

func TestCopyKeepsHoles(t *testing.T) {
	const size = 1 << 30
	src := layout{size: size, pieces: map[int64]string{size / 2: "x"}}.write(t)
	dst, err := os.Create(filepath.Join(t.TempDir(), "dst"))
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	if err := Copy(t.Context(), dst, src); err != nil {
		t.Fatal(err)
	}
	info, err := dst.Stat()
	if err != nil {
		t.Fatal(err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Size() != size || st.Blocks*512 > 8<<20 {
		t.Errorf("copy has %d bytes and takes %d on disk", info.Size(), st.Blocks*512)
	}
}

func TestCanceled(t *testing.T) {
	src := layout{size: 1 << 20, pieces: map[int64]string{0: "x"}}.write(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Digest(ctx, src); !errors.Is(err, context.Canceled) {
		t.Errorf("digest of a canceled context: %v", err)
	}
}
