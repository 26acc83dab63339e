package gunzip

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

// bitWriter builds deflate streams bit by bit.
type bitWriter struct {
	b []byte
	n int
}

// put appends the low n bits of v, the lowest first.
func (w *bitWriter) put(v, n int) *bitWriter {
	for i := range n {
		if w.n%8 == 0 {
			w.b = append(w.b, 0)
		}
		w.b[w.n/8] |= byte(v>>i&1) << (w.n % 8)
		w.n++
	}
	return w
}

// code appends a code word, whose highest bit comes first.
func (w *bitWriter) code(word string) *bitWriter {
	for _, c := range word {
		w.put(int(c-'0'), 1)
	}
	return w
}

// fixedBlock starts a last block in the fixed code.
func fixedBlock() *bitWriter { return new(bitWriter).put(1, 1).put(1, 2) }

// dynamicBlock starts a last block. lengths are the lengths of the words in
// the code of the code lengths, in the order of RFC 1951: 16 17 18 0 8 7 9 6
// 10 5 11 4 12 3 13 2 14 1 15.
func dynamicBlock(numLiteral, numDistance int, lengths ...int) *bitWriter {
	w := new(bitWriter).put(1, 1).put(2, 2).put(numLiteral-257, 5).put(numDistance-1, 5).put(len(lengths)-4, 4)
	for _, n := range lengths {
		w.put(n, 3)
	}
	return w
}

// member returns a gzip member of the deflate data, with the checksum and size
// of plain.
func member(deflated, plain []byte) []byte {
	out := append([]byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"), deflated...)
	out = binary.LittleEndian.AppendUint32(out, crc32.ChecksumIEEE(plain))
	return binary.LittleEndian.AppendUint32(out, uint32(len(plain)))
}

// storedBlocks returns plain as stored blocks, none of which is marked as the
// last block.
func storedBlocks(plain []byte) []byte {
	var b bytes.Buffer
	for len(plain) > 0 {
		n := min(len(plain), 65535)
		b.Write([]byte{0, byte(n), byte(n >> 8), ^byte(n), ^byte(n >> 8)})
		b.Write(plain[:n])
		plain = plain[n:]
	}
	return b.Bytes()
}
