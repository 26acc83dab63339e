package gunzip

import "math/bits"

// A table entry tells all about a code word at once, so that most symbols
// take one lookup:
//
//	bits  0-5   bits to take: the code word, and the extra bits behind it
//	bits  8-11  of those, the code word's
//	bit  13     invalid code word
//	bit  14     end of block
//	bit  15     pointer to a second table, with its index bits in bits 8-11
//	bits 16-30  literal, base of a length or distance, or start of that table
//	bit  31     literal
type entry uint32

func (e entry) byte() byte { return byte(e >> valueShift) }

// value is not for literals.
func (e entry) value() uint64 { return uint64(e >> valueShift) }

// extra returns the extra bits of a code word at the front of bits.
func (e entry) extra(bits uint64) uint64 {
	return bits & (1<<(e&bitsMask) - 1) >> (e >> wordShift & wordMask)
}

// index returns the place in the second table which bits lead to.
func (e entry) index(bits uint64) uint64 { return bits & (1<<(e>>wordShift&wordMask) - 1) }

const (
	bitsMask   = 63
	wordShift  = 8
	wordMask   = 15
	isInvalid  = 1 << 13
	isEnd      = 1 << 14
	isPointer  = 1 << 15
	valueShift = 16
	isLiteral  = 1 << 31

	literalBits  = 11 // index bits of the first tables
	distanceBits = 8
	maxCodeBits  = 15
	numLiterals  = 288 // 286 and 287 only take part in the fixed code
	numDistances = 32

	// The most entries that a complete code needs, first and second tables
	// together, is 2342 and 402; see "enough.c" of zlib. Powers of two save
	// bounds checks.
	literalSize  = 4096
	distanceSize = 512
)

// Bases and extra bits of length codes 257 to 285 and distance codes 0 to
// 29: RFC 1951, section 3.2.5.
var (
	lengthBase    = [...]uint16{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	lengthExtra   = [...]uint8{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	distanceBase  = [...]uint16{1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577}
	distanceExtra = [...]uint8{0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13}
)

// literalEntry is the entry of a literal or length symbol, without lengths.
func literalEntry(symbol int) entry {
	switch {
	case symbol < 256:
		return isLiteral | entry(symbol)<<valueShift
	case symbol == 256:
		return isEnd
	case symbol-257 < len(lengthBase):
		return entry(lengthBase[symbol-257])<<valueShift | entry(lengthExtra[symbol-257])
	}
	return isInvalid
}

func distanceEntry(symbol int) entry {
	if symbol < len(distanceBase) {
		return entry(distanceBase[symbol])<<valueShift | entry(distanceExtra[symbol])
	}
	return isInvalid
}

// plainEntry is that of the code which code lengths are written in.
func plainEntry(symbol int) entry { return entry(symbol) << valueShift }

// build fills table for the code with these code word lengths, as RFC 1951
// says in section 3.2.2. What is over-subscribed or incomplete is refused,
// but for a code of one word of one bit or of none, like zlib does.
func build(table []entry, tableBits int, lengths []uint8, of func(symbol int) entry) bool {
	var count, next [maxCodeBits + 2]int
	for _, n := range lengths {
		count[n]++
	}
	used := len(lengths) - count[0]
	count[0] = 0
	code := 0
	for n := 1; n <= maxCodeBits; n++ {
		code = (code + count[n-1]) << 1
		next[n] = code
		if code+count[n] > 1<<n {
			return false
		}
	}
	if complete := next[maxCodeBits]+count[maxCodeBits] == 1<<maxCodeBits; !complete {
		if used > 1 || used != count[1] {
			return false
		}
		for i := range table[:1<<tableBits] {
			table[i] = isInvalid
		}
	}
	b := builder{table: table, bits: tableBits, free: 1 << tableBits, count: count}
	for n := 1; n <= maxCodeBits; n++ {
		if count[n] == 0 {
			continue
		}
		for symbol, length := range lengths {
			if int(length) != n {
				continue
			}
			e := of(symbol)
			b.put(next[n], n, e+entry(n)|entry(n)<<8)
			next[n]++
		}
	}
	return true
}

// builder puts code words into tables in the order of their codes.
type builder struct {
	table []entry
	bits  int // index bits of the first table
	free  int // begin of the next second table
	count [maxCodeBits + 2]int

	prefix    int // low bits that all words in the second table share, reversed
	start     int // of the second table
	indexBits int // of the second table, 0: there is none yet
}

// put enters a code word of n bits. In the stream it comes with its highest
// bit first, so it is an index in reverse.
func (b *builder) put(code, n int, e entry) {
	index := int(bits.Reverse16(uint16(code)) >> (16 - n))
	if n <= b.bits {
		for i := index; i < 1<<b.bits; i += 1 << n {
			b.table[i] = e
		}
		b.count[n]--
		return
	}
	prefix := index & (1<<b.bits - 1)
	if b.indexBits == 0 || prefix != b.prefix {
		b.second(prefix, n)
	}
	for i := index >> b.bits; i < 1<<b.indexBits; i += 1 << (n - b.bits) {
		b.table[b.start+i] = e - entry(b.bits) - entry(b.bits)<<8
	}
	b.count[n]--
}

// second begins the second table for prefix, as large as the words from here
// on can fill.
func (b *builder) second(prefix, n int) {
	size := n - b.bits
	for room := 1 << size; ; size++ {
		room -= b.count[b.bits+size]
		if room <= 0 || b.bits+size == maxCodeBits {
			break
		}
		room <<= 1
	}
	b.prefix, b.start, b.indexBits = prefix, b.free, size
	b.free += 1 << size
	b.table[prefix] = isPointer | entry(b.start)<<valueShift | entry(size)<<8 | entry(b.bits)
}
