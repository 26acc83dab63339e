package build

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/banger-vm/banger/internal/image/pull"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/image/tree"
)

// layerTar returns a layer with one file.
func layerTar(t *testing.T, name string, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// ociLayout writes an image whose layers are tars, compressed at the given level,
// and returns its source.
func ociLayout(t *testing.T, level int, tars ...[]byte) string {
	t.Helper()
	img := empty.Image
	for _, data := range tars {
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(data)), nil
		}, tarball.WithCompressionLevel(level))
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, l); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AppendImage(img); err != nil {
		t.Fatal(err)
	}
	return "oci:" + dir
}

func convertOnce(t *testing.T, source string, o Options) (sum string, res *Result) {
	t.Helper()
	o.Pull = pull.Options{CacheDir: t.TempDir()}
	path := filepath.Join(t.TempDir(), "disk")
	res, err := Convert(t.Context(), source, path, o)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(data)), res
}

// The layer with the largest size as stored unpacks into the disk. If another layer
// has more data, the build copies the bodies, and the bytes of the disk are the same.
func TestB3WrongGuessOfTheLargestLayerChangesNoByte(t *testing.T) {
	random := make([]byte, 300_000)
	source := rand.NewChaCha8([32]byte{1})
	if _, err := source.Read(random); err != nil {
		t.Fatal(err)
	}
	small, large := layerTar(t, "random", random), layerTar(t, "text", []byte(strings.Repeat("0123456789", 200_000)))
	wrong := ociLayout(t, gzip.BestCompression, large, small) // 10 kB and 300 kB as stored
	right := ociLayout(t, gzip.NoCompression, large, small)   // the sizes of their data
	wrongSum, res := convertOnce(t, wrong, Options{})
	if res.Layers[0].Size >= res.Layers[1].Size {
		t.Fatalf("stored sizes %d and %d: the guess is not wrong", res.Layers[0].Size, res.Layers[1].Size)
	}
	rightSum, res := convertOnce(t, right, Options{})
	if res.Layers[0].Size <= res.Layers[1].Size {
		t.Fatalf("stored sizes %d and %d: the guess is not right", res.Layers[0].Size, res.Layers[1].Size)
	}
	if wrongSum != rightSum {
		t.Error("the disks differ")
	}
	other, _ := convertOnce(t, right, Options{Label: "other"})
	if other == rightSum {
		t.Error("the label changes no byte: the sums do not depend on the disk")
	}
}

func TestUUID(t *testing.T) {
	id, err := ParseUUID("01234567-89AB-cdef-0123-456789abcdef")
	if err != nil || formatUUID(id) != "01234567-89ab-cdef-0123-456789abcdef" {
		t.Errorf("got %x, %v", id, err)
	}
	for _, text := range []string{"", "0123456789abcdef0123456789abcdef", "01234567-89ab-cdef-0123-456789abcdeg", "0123456-789ab-cdef-0123-456789abcdef", "x"} {
		if _, err := ParseUUID(text); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
	s, err := identity{}.seeds()
	if err != nil || s.uuid[6]>>4 != 8 || s.uuid[8]>>6 != 2 {
		t.Errorf("derived UUID %s is not of version 8, %v", formatUUID(s.uuid), err)
	}
}

func TestMatchesComparesTheOptionsThatAreSet(t *testing.T) {
	rec := &store.Image{Disk: store.Disk{Size: 64 << 20, Builder: "native", Label: "root", Paths: "strict"}}
	for name, c := range map[string]struct {
		o    Options
		want bool
	}{
		"no option":        {Options{}, true},
		"the same":         {Options{Builder: Native, Size: 64 << 20, Label: "root"}, true},
		"another size":     {Options{Size: 128 << 20}, false},
		"another builder":  {Options{Builder: E2fsprogs}, false},
		"another label":    {Options{Label: "data"}, false},
		"another UUID":     {Options{UUID: "01234567-89ab-cdef-0123-456789abcdef"}, false},
		"a given headroom": {Options{Headroom: 1}, false},
		"other paths":      {Options{Paths: tree.Scoped}, false},
	} {
		if got := c.o.matches(rec); got != c.want {
			t.Errorf("%s: matches is %v", name, got)
		}
	}
}

func TestB1FreeSpaceIsChecked(t *testing.T) {
	if err := checkSpace(t.TempDir(), 0, 0); err != nil {
		t.Error(err)
	}
	if err := checkSpace(t.TempDir(), 1<<62, 0); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("4 EiB were free: %v", err)
	}
	m := tree.NewMerger(tree.Options{})
	for layer := range 2 {
		if err := m.NextLayer(); err != nil {
			t.Fatal(err)
		}
		for i, runs := range [][]tree.Run{nil, {{Offset: 4096, Length: 4096}}, {}} {
			e := tree.Entry{Name: fmt.Sprint(layer, i), Type: tree.Regular, Size: 10_000, Body: tree.Body{Runs: runs}}
			if err := m.Add(&e); err != nil {
				t.Fatal(err)
			}
		}
	}
	tree := m.Tree()
	if got := bodyBytes(tree, -1); got != 2*16_384 {
		t.Errorf("all bodies have %d bytes", got)
	}
	if got := bodyBytes(tree, 1); got != 16_384 {
		t.Errorf("the bodies outside layer 1 have %d bytes", got)
	}
}

func TestB1ConvertThatFailsLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	truncated := filepath.Join(t.TempDir(), "short.tar")
	if err := os.WriteFile(truncated, layerTar(t, "a", make([]byte, 5000))[:2000], 0o600); err != nil {
		t.Fatal(err)
	}
	for _, b := range []Builder{Native, E2fsprogs} {
		_, err := Convert(t.Context(), "tar:"+truncated, filepath.Join(dir, "disk"), Options{Builder: b, Pull: pull.Options{CacheDir: t.TempDir()}})
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", b, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("%s left %v, %v", b, left, err)
		}
	}
}
