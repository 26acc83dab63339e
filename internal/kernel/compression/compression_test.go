package compression

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/banger-vm/banger/internal/kernel/kerneltest"
)

// TestBombs decompresses more than the limit, and less than a whole stream.
func TestBombs(t *testing.T) {
	zeros := bytes.Repeat([]byte{0}, 1<<20)
	for _, format := range []string{"none", "gzip", "xz", "zstd", "lz4"} {
		t.Run(format, func(t *testing.T) {
			data := kerneltest.Compress(t, format, zeros)
			if out, err := Decompress(t.Context(), data, 1<<20); err != nil || !bytes.Equal(out, zeros) {
				t.Errorf("at the limit: %d bytes, %v", len(out), err)
			}
			_, err := Decompress(t.Context(), data, 1<<20-1)
			if size, ok := errors.AsType[*SizeError](err); !ok || size.Limit != 1<<20-1 {
				t.Errorf("over the limit: %v", err)
			}
			var sink bytes.Buffer
			if err := Copy(t.Context(), &sink, bytes.NewReader(data), 1000); err == nil || sink.Len() > 1001 {
				t.Errorf("a stream over the limit: %d bytes, %v", sink.Len(), err)
			}
			if format == "none" {
				return
			}
			if _, err := Decompress(t.Context(), data[:len(data)-len(data)/3], 1<<20); err == nil {
				t.Error("a truncated stream was accepted")
			}
		})
	}
}

// TestXZDictionary changes the property that encodes the size of the dictionary:
// 28 is 64 MiB, 31 is 192 MiB.
func TestXZDictionary(t *testing.T) {
	data := kerneltest.Compress(t, "xz", []byte("some text"))
	at := bytes.Index(data, []byte{0x21, 1}) + 2
	if at < 2 {
		t.Fatal("no filter LZMA2")
	}
	for property, fits := range map[byte]bool{28: true, 31: false, 40: false} {
		changed := bytes.Clone(data)
		changed[at] = property
		_, err := Decompress(t.Context(), changed, 1<<20)
		if err == nil {
			t.Error("a header with a wrong checksum was accepted")
		} else if refused := strings.Contains(err.Error(), "xz: dictionary of"); refused == fits {
			t.Errorf("property %d: %v", property, err)
		}
	}
}

func TestLegacyLZ4Blocks(t *testing.T) {
	le := binary.LittleEndian
	head := le.AppendUint32(nil, lz4Magic)
	for name, row := range map[string]struct {
		data []byte
		want string
	}{
		"block of no bytes": {le.AppendUint32(head[:4:4], 0), "block of 0 bytes"},
		"huge block":        {le.AppendUint32(head[:4:4], 1<<31), "block of 2147483648 bytes"},
		"truncated block":   {le.AppendUint32(head[:4:4], 100), "EOF"},
		"garbage":           {append(le.AppendUint32(head[:4:4], 4), 0xff, 0xff, 0xff, 0xff), "lz4"},
		"truncated length":  {append(head[:4:4], 1, 2), "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Decompress(t.Context(), row.data, 1<<20); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error is %v, want %q", err, row.want)
			}
		})
	}
}

func TestXZHasOneStream(t *testing.T) {
	one := kerneltest.Compress(t, "xz", []byte("some text"))
	for name, tail := range map[string][]byte{"stream": one, "padding": make([]byte, 4), "garbage": []byte("x")} {
		if out, err := Decompress(t.Context(), append(bytes.Clone(one), tail...), 100); err == nil {
			t.Errorf("%s behind the stream: got %q", name, out)
		}
	}
}

// endless is a reader without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	began := make(chan struct{})
	var once sync.Once
	go func() {
		<-began
		cancel()
	}()
	w := writerFunc(func(p []byte) (int, error) {
		once.Do(func() { close(began) })
		return len(p), nil
	})
	if err := Copy(ctx, w, endless{}, 1<<40); !errors.Is(err, context.Canceled) {
		t.Errorf("copy: %v", err)
	}
	if _, err := Decompress(ctx, kerneltest.Compress(t, "gzip", []byte("text")), 100); !errors.Is(err, context.Canceled) {
		t.Errorf("decompress: %v", err)
	}
}
