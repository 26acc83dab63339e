package layer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/gzip"
)

// benchLayer is a gzip layer of 12,000 small and some large files whose
// content compresses about as programs do.
func benchLayer(b *testing.B) (stored, plain []byte) {
	b.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	var headers []tar.Header
	bodies := map[string]string{}
	for i := range 12_000 {
		name := fmt.Sprintf("usr/share/doc/package-%d/file-%d", i/20, i)
		size := 1 + random.IntN(20_000)
		if i%1000 == 0 {
			size = 8 << 20
		}
		body := make([]byte, size)
		for j := range body {
			body[j] = byte('a' + random.IntN(1+j%23))
		}
		headers = append(headers, tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644})
		bodies[name] = string(body)
	}
	plain = makeTar(b, headers, bodies)
	return gzipped(b, plain), plain
}

func BenchmarkUnpack(b *testing.B) {
	stored, plain := benchLayer(b)
	b.Run("unpack", func(b *testing.B) {
		b.SetBytes(int64(len(plain)))
		for b.Loop() {
			if _, err := Unpack(b.Context(), bytes.NewReader(stored), discardAt{}, io.Discard, Options{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decompress alone", func(b *testing.B) {
		b.SetBytes(int64(len(plain)))
		for b.Loop() {
			z, err := gzip.NewReader(bytes.NewReader(stored))
			if err != nil {
				b.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, z); err != nil {
				b.Fatal(err)
			}
		}
	})
}

type discardAt struct{}

func (discardAt) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
