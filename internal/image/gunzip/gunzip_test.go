package gunzip

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func compress(t testing.TB, plain []byte, level int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// samples returns data that compressors encode in different kinds of blocks.
// Most of it is longer than the buffers of the decoder.
func samples() map[string][]byte {
	random := rand.New(rand.NewPCG(1, 2))
	noise, letters, words := make([]byte, 400_000), make([]byte, 500_000), []byte{}
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	for i := range letters {
		letters[i] = byte('a' + min(random.IntN(26), random.IntN(26), random.IntN(26)))
	}
	for len(words) < 800_000 {
		words = fmt.Appendf(words, "line %d of %x\n", random.IntN(1000), random.IntN(50))
		if random.IntN(50) == 0 {
			from := random.IntN(len(words))
			words = append(words, words[from:min(from+random.IntN(40_000), len(words))]...)
		}
	}
	out := map[string][]byte{
		"nothing": {}, "a byte": {'x'}, "noise": noise, "letters": letters, "words": words, "zeros": make([]byte, 800_000),
		"mixed": slices.Concat(words[:300_000], noise[:100_000], make([]byte, 70_000), letters[:50_000], words[:300_000]),
	}
	for period := 2; period < 12; period++ {
		out[fmt.Sprint("period ", period)] = bytes.Repeat(noise[:period], 40_000)
	}
	return out
}

func TestDecodesStreamsOfStandardLibrary(t *testing.T) {
	for name, plain := range samples() {
		for _, level := range []int{gzip.HuffmanOnly, 0, 1, 4, 9} {
			got, err := io.ReadAll(NewReader(bytes.NewReader(compress(t, plain, level))))
			if err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%s at level %d: %d bytes, want %d, %v", name, level, len(got), len(plain), err)
			}
		}
	}
}

func TestReadsOfAnySize(t *testing.T) {
	plain := samples()["mixed"]
	stored := compress(t, plain, 6)
	for name, r := range map[string]io.Reader{
		"source of single bytes":                  NewReader(iotest.OneByteReader(bytes.NewReader(stored))),
		"source with data and io.EOF in one read": NewReader(iotest.DataErrReader(bytes.NewReader(stored))),
		"single bytes":                            iotest.OneByteReader(NewReader(bytes.NewReader(stored))),
		"halves":                                  iotest.HalfReader(NewReader(iotest.HalfReader(bytes.NewReader(stored)))),
	} {
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

func TestMembers(t *testing.T) {
	var stored, plain []byte
	for i := range 100 {
		part := fmt.Appendf(nil, "member %d ", i)
		stored = append(stored, compress(t, part, i%10)...)
		plain = append(plain, part...)
	}
	stored, plain = bytes.Repeat(stored, 30), bytes.Repeat(plain, 30)
	stored = append(stored, compress(t, nil, 9)...)
	if got, err := io.ReadAll(NewReader(bytes.NewReader(stored))); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("%d bytes, want %d, %v", len(got), len(plain), err)
	}
}

func TestHeaderFields(t *testing.T) {
	const base = "\x00\x00\x00\x00\x00\x03"
	checked := "\x1f\x8b\x08\x02" + base
	crc := crc32.ChecksumIEEE([]byte(checked))
	checked += string([]byte{byte(crc), byte(crc >> 8)})
	body := string(member(fixedBlock().code("0000000").b, nil)[10:])
	for name, header := range map[string]string{
		"text":             "\x1f\x8b\x08\x01" + base,
		"name":             "\x1f\x8b\x08\x08" + base + "layer.tar\x00",
		"long name":        "\x1f\x8b\x08\x08" + base + strings.Repeat("n", 300_000) + "\x00",
		"extra":            "\x1f\x8b\x08\x04" + base + "\x05\x00extra",
		"empty extra":      "\x1f\x8b\x08\x04" + base + "\x00\x00",
		"comment":          "\x1f\x8b\x08\x10" + base + "a comment\x00",
		"all but checksum": "\x1f\x8b\x08\x1d" + base + "\x05\x00extraname\x00comment\x00",
		"checksum":         checked,
	} {
		want, wantErr := gzip.NewReader(strings.NewReader(header + body))
		if wantErr != nil && name != "long name" {
			t.Fatalf("%s: the standard library returns %v", name, wantErr)
		}
		if wantErr == nil {
			if _, err := io.ReadAll(want); err != nil {
				t.Fatalf("%s: the standard library returns %v", name, err)
			}
		}
		if got, err := io.ReadAll(NewReader(strings.NewReader(header + body))); err != nil || len(got) != 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTruncatedAnywhere(t *testing.T) {
	plain := samples()["mixed"][:3000]
	stored := append(compress(t, plain[:1000], 9), compress(t, plain[1000:], 0)...)
	cut := len(compress(t, plain[:1000], 9))
	for n := range len(stored) {
		_, err := io.ReadAll(NewReader(bytes.NewReader(stored[:n])))
		if n == cut {
			if err != nil {
				t.Errorf("after the first member: %v", err)
			}
			continue
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) && (n != cut+1 || !errors.Is(err, errTrailing)) {
			t.Errorf("cut after %d bytes: %v", n, err)
		}
		cause := errors.New("connection reset")
		_, err = io.ReadAll(NewReader(io.MultiReader(bytes.NewReader(stored[:n]), iotest.ErrReader(cause))))
		if !errors.Is(err, cause) {
			t.Errorf("source fails after %d bytes: %v", n, err)
		}
	}
}

// TestFlippedBits checks that a flipped bit causes an error or does not change
// the data.
func TestFlippedBits(t *testing.T) {
	plain := samples()["mixed"][:600]
	for _, level := range []int{0, 1, 9} {
		stored := compress(t, plain, level)
		for at := range 8 * len(stored) {
			stored[at/8] ^= 1 << (at % 8)
			// A few bits have no meaning, such as those before stored blocks.
			if got, err := io.ReadAll(NewReader(bytes.NewReader(stored))); err == nil && !bytes.Equal(got, plain) {
				t.Errorf("level %d: no error with bit %d flipped", level, at)
			}
			stored[at/8] ^= 1 << (at % 8)
		}
	}
}

func TestErrorsAreSticky(t *testing.T) {
	z := NewReader(strings.NewReader("no gzip at all, but long enough"))
	for range 3 {
		if n, err := z.Read(make([]byte, 10)); n != 0 || !errors.Is(err, errHeader) {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
}

func BenchmarkReader(b *testing.B) {
	plain := samples()["mixed"]
	stored := compress(b, plain, 6)
	b.SetBytes(int64(len(plain)))
	for b.Loop() {
		if _, err := io.Copy(io.Discard, NewReader(bytes.NewReader(stored))); err != nil {
			b.Fatal(err)
		}
	}
}
