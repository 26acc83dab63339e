package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/banger-vm/banger/internal/image/tree"
)

// zstdFrame returns a frame of RFC 8878 with a window of 2^log bytes and one block
// that holds data as it is.
func zstdFrame(log int, data []byte) []byte {
	block := uint32(len(data))<<3 | 1 // raw, last
	head := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, byte(log-10) << 3, byte(block), byte(block >> 8), byte(block >> 16)}
	return append(head, data...)
}

func TestZstdWindows(t *testing.T) {
	plain := makeTar(t, []tar.Header{{Name: "f", Typeflag: tar.TypeReg}}, map[string]string{"f": "content"})
	skip := []byte{0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 'h', 'i'}
	for _, c := range []struct {
		name    string
		stored  []byte
		limit   int64
		refused int64 // the limit in the error; 0 if the layer is accepted
	}{
		{"128 MiB", zstdFrame(27, plain), 0, 0},
		{"512 MiB", zstdFrame(29, plain), 0, 0},
		{"512 MiB after a frame to skip", append(slices.Clone(skip), zstdFrame(29, plain)...), 0, 0},
		{"1 GiB", zstdFrame(30, plain), 0, DefaultWindow},
		{"2 GiB with a limit of 2 GiB", zstdFrame(31, plain), 2 << 30, 0},
		{"4 GiB with a limit of 8 GiB", zstdFrame(32, plain), 8 << 30, MaxWindow},
		{"64 MiB with a limit of 16 MiB", zstdFrame(26, plain), 16 << 20, 16 << 20},
		{"1 GiB in a later frame", append(zstdFrame(27, plain[:512]), zstdFrame(30, plain[512:])...), 2 << 30, commonWindow},
	} {
		t.Run(c.name, func(t *testing.T) {
			var table bytes.Buffer
			_, err := Unpack(t.Context(), bytes.NewReader(c.stored), &spool{t: t}, &table, Options{Limits: Limits{Windows: NewWindows(c.limit)}})
			if c.refused == 0 {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var limit *tree.LimitError
			if !errors.As(err, &limit) || limit.Limit != c.refused || !strings.Contains(err.Error(), "--max-window") {
				t.Errorf("got %v, want a limit of %d", err, c.refused)
			}
		})
	}
}

// TestWideWindowsOneAtATime unpacks layers with large windows in parallel. They
// wait for each other, and a layer that waits ends with its context.
func TestWideWindowsOneAtATime(t *testing.T) {
	plain := makeTar(t, []tar.Header{{Name: "f", Typeflag: tar.TypeReg}}, map[string]string{"f": "content"})
	windows := NewWindows(0)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			var table bytes.Buffer
			o := Options{Limits: Limits{Windows: windows}}
			if _, err := Unpack(t.Context(), bytes.NewReader(zstdFrame(28, plain)), &spool{t: t}, &table, o); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	z, err := windows.open(t.Context(), newSource(bytes.NewReader(zstdFrame(28, plain))).Reader)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := windows.open(ctx, newSource(bytes.NewReader(zstdFrame(28, plain))).Reader); !errors.Is(err, ctx.Err()) {
		t.Errorf("a second layer with a large window: %v", err)
	}
	if err := z.Close(); err != nil {
		t.Error(err)
	}
}
