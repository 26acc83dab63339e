package layer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
)

// benchLayer returns a gzip layer of 12,000 small files and some large ones.
// Its content compresses about as well as programs do.
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

// BenchmarkUnpack measures Unpack beside decompression alone. The target is
// 1.25 times the time of decompression, on two cores.
func BenchmarkUnpack(b *testing.B) {
	stored, plain := benchLayer(b)
	for name, stored := range map[string][]byte{"gzip": stored, "zstd": zstdCompressed(b, plain), "none": plain} {
		b.Run(name+"/unpack", func(b *testing.B) {
			b.SetBytes(int64(len(plain)))
			for b.Loop() {
				if _, err := Unpack(b.Context(), bytes.NewReader(stored), discardAt{}, io.Discard, Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/decompress alone", func(b *testing.B) {
			b.SetBytes(int64(len(plain)))
			for b.Loop() {
				z, _, err := decompress(b.Context(), newSource(bytes.NewReader(stored)), NewWindows(0))
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, z); err != nil {
					b.Fatal(err)
				}
				z.Close()
			}
		})
	}
}

// BenchmarkEntries measures the cost of an entry, with and without a PAX header.
func BenchmarkEntries(b *testing.B) {
	const n = 20_000
	one := map[string][]byte{
		"plain": rawHeader("usr/share/doc/package/copyright", flagRegular, 0, nil),
		"PAX":   pax("copyright", "path=usr/share/doc/package/copyright", "mtime=1700000000.123456789", "SCHILY.xattr.user.a=b"),
	}
	for name, entry := range one {
		plain := append(bytes.Repeat(entry, n), make([]byte, 2*blockSize)...)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Unpack(b.Context(), bytes.NewReader(plain), discardAt{}, io.Discard, Options{}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/entry")
		})
	}
}

type discardAt struct{}

func (discardAt) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
