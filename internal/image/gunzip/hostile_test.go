package gunzip

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

// endOnlyBlock starts a block whose literal code has one word, the end of the
// block, and whose distance code is empty. The code lengths are 256 zeros, a
// 1 and a zero.
func endOnlyBlock() *bitWriter {
	// In the code of the code lengths, 18 is "0", 0 is "10" and 1 is "11".
	return dynamicBlock(257, 1, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2).
		code("0").put(138-11, 7).code("0").put(118-11, 7).code("11").code("10")
}

func TestHostileStreams(t *testing.T) {
	good := compress(t, []byte(strings.Repeat("good data ", 100)), 9)
	stored := append(storedBlocks([]byte("abc")), fixedBlock().code("0000000").b...)
	for _, c := range []struct {
		name   string
		stored []byte
		want   error
	}{
		{"nothing", nil, io.ErrUnexpectedEOF},
		{"other magic", []byte("BZh91AY&SY and more"), errHeader},
		{"other method", append([]byte{0x1f, 0x8b, 7}, good[3:]...), errHeader},
		{"reserved flag", slices.Concat(good[:3], []byte{0x20}, good[4:]), errHeader},
		{"wrong header checksum", slices.Concat(good[:3], []byte{2}, good[4:10], []byte{1, 2}, good[10:]), errHeader},
		{"extra field longer than the stream", slices.Concat(good[:3], []byte{4}, good[4:10], []byte{0xff, 0xff, 1}), io.ErrUnexpectedEOF},
		{"name without an end", slices.Concat(good[:3], []byte{8}, good[4:10], bytes.Repeat([]byte("n"), 1<<20)), io.ErrUnexpectedEOF},
		{"wrong checksum", member(stored, []byte("abd")), errChecksum},
		{"wrong size", append(slices.Clone(good[:len(good)-1]), 1), errChecksum},
		{"trailing text", append(slices.Clone(good), "and more text"...), errTrailing},
		{"trailing zero and text", append(slices.Clone(good), "\x00text"...), errTrailing},
		{"trailing zero and member", slices.Concat(good, []byte{0}, good), errTrailing},
		{"many trailing zeros and a one", append(append(slices.Clone(good), make([]byte, 1<<20)...), 1), errTrailing},
		{"half a magic", append(slices.Clone(good), 0x1f), errTrailing},
		{"half a header", append(slices.Clone(good), 0x1f, 0x8b, 8), io.ErrUnexpectedEOF},
		{"second member of another method", append(slices.Clone(good), "\x1f\x8b\x07\x00\x00\x00\x00\x00\x00\x00"...), errHeader},

		{"reserved block type", member(new(bitWriter).put(1, 1).put(3, 2).b, nil), errCorrupt},
		{"stored length and inverse do not match", member([]byte{1, 5, 0, 0xfa, 0xfe, 'a'}, nil), errCorrupt},
		{"match before the beginning", member(fixedBlock().code("0000001").code("00000").code("0000000").b, nil), errCorrupt},
		{"match into the previous member", append(slices.Clone(good), member(fixedBlock().code("0000001").code("00000").code("0000000").b, nil)...), errCorrupt},
		{"match a byte too far back", member(append(storedBlocks([]byte("abc")), fixedBlock().code("0000001").code("00011").code("0000000").b...), nil), errCorrupt},
		{"length symbol 286", member(fixedBlock().code("11000110").put(0, 32).b, nil), errCorrupt},
		{"distance symbol 30", member(fixedBlock().code("00110000").code("0000001").code("11110").put(0, 32).b, nil), errCorrupt},
		{"287 literals", member(dynamicBlock(287, 1, 1, 1, 1, 1).put(0, 99).b, nil), errCorrupt},
		{"31 distances", member(dynamicBlock(257, 31, 1, 1, 1, 1).put(0, 99).b, nil), errCorrupt},
		{"code of lengths over-subscribed", member(dynamicBlock(257, 1, 1, 1, 1, 0).put(0, 999).b, nil), errCorrupt},
		{"code of lengths incomplete", member(dynamicBlock(257, 1, 2, 2, 2, 0).put(0, 999).b, nil), errCorrupt},
		{"code of lengths empty", member(dynamicBlock(257, 1, 0, 0, 0, 0).put(0, 999).b, nil), errCorrupt},
		{"repeat of nothing", member(dynamicBlock(257, 1, 1, 0, 1, 0).code("0").put(0, 999).b, nil), errCorrupt},
		{"too many lengths", member(dynamicBlock(257, 1, 0, 0, 1, 1).code("1").put(127, 7).code("1").put(127, 7).put(0, 99).b, nil), errCorrupt},
		{"no end of block", member(dynamicBlock(257, 1, 0, 0, 1, 1).code("1").put(127, 7).code("1").put(109, 7).put(0, 99).b, nil), errCorrupt},
		{"word that is not in the code", member(endOnlyBlock().code("1").put(0, 99).b, nil), errCorrupt},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := io.ReadAll(NewReader(bytes.NewReader(c.stored))); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// TestUnusualStreams decodes valid streams that compressors rarely write.
func TestUnusualStreams(t *testing.T) {
	long := []byte(strings.Repeat("stored ", 40_000))
	for _, c := range []struct {
		name     string
		deflated []byte
		plain    string
	}{
		{"a code with one word", endOnlyBlock().code("0").b, ""},
		{"empty stored blocks", append(bytes.Repeat([]byte{0, 0, 0, 0xff, 0xff}, 1000), 1, 0, 0, 0xff, 0xff), ""},
		{"stored blocks", append(storedBlocks(long), 1, 0, 0, 0xff, 0xff), string(long)},
		{"match of the whole window", append(storedBlocks(long[:1<<15]), fixedBlock().code("0000001").code("11101").put(1<<13-1, 13).code("0000000").b...), string(long[:1<<15]) + string(long[:3])},
		{"longest match", fixedBlock().code("00110001").code("11000101").code("00000").code("0000000").b, strings.Repeat("\x01", 259)},
	} {
		got, err := io.ReadAll(NewReader(bytes.NewReader(member(c.deflated, []byte(c.plain)))))
		if err != nil || string(got) != c.plain {
			t.Errorf("%s: %d bytes, want %d, %v", c.name, len(got), len(c.plain), err)
		}
		if want, err := io.ReadAll(flate.NewReader(bytes.NewReader(c.deflated))); err != nil || string(want) != c.plain {
			t.Errorf("%s: the standard library returns %d bytes, %v", c.name, len(want), err)
		}
	}
}

// FuzzAgainstStandardLibrary checks that this decoder and compress/flate
// decode any stream to the same data, or both refuse it.
func FuzzAgainstStandardLibrary(f *testing.F) {
	n := 0
	for _, plain := range samples() {
		for _, level := range []int{flate.HuffmanOnly, 0, 1, 9} {
			stored := compress(f, plain[:min(len(plain), 2000)], level)
			f.Add(stored[10 : len(stored)-8])
			n++
		}
	}
	f.Add(endOnlyBlock().code("0").b)
	if n == 0 {
		f.Fatal("no seeds")
	}
	f.Fuzz(func(t *testing.T, deflated []byte) {
		want, wantErr := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(deflated)), 1<<20))
		d := newInflater(bytes.NewReader(append(bytes.Clone(deflated), make([]byte, 8)...)))
		var got []byte
		var err error
		for done := false; err == nil && !done && len(got) < 1<<20; {
			d.slide()
			before := d.outAt
			done, err = d.decode()
			got = append(got, d.out[before:d.outAt]...)
		}
		if err != nil && wantErr == nil && len(want) < 1<<20 {
			t.Errorf("got %v, the standard library accepts the stream", err)
		}
		if err == nil && !bytes.HasPrefix(got, want) {
			t.Errorf("decoded %d bytes, the standard library %d different bytes", len(got), len(want))
		}
		if err == nil && wantErr != nil && !errors.Is(wantErr, io.ErrUnexpectedEOF) {
			t.Errorf("no error, the standard library returns %v", wantErr)
		}
	})
}
