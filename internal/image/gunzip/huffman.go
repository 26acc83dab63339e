package gunzip

import "math/bits"

// An entry of a table describes a code word completely, so that most symbols
// take one lookup:
//
//	bits  0-5   number of bits to consume: the code word and its extra bits
//	bits  8-11  number of bits of the code word alone
//	bit  13     invalid code word
//	bit  14     end of block
//	bit  15     pointer to a second table, with the number of its index bits in bits 8-11
//	bits 16-30  literal, base of a length or distance, or start of the second table
//	bit  31     literal
type entry uint32

func (e entry) byte() byte { return byte(e >> valueShift) }

// value returns the base of a length or distance, or the start of a second
// table. It is not valid for a literal.
func (e entry) value() uint64 { return uint64(e >> valueShift) }

// extra returns the extra bits of the code word at the front of bits.
func (e entry) extra(bits uint64) uint64 {
	return bits & (1<<(e&bitsMask) - 1) >> (e >> wordShift & wordMask)
}

// index returns the index in the second table of the code word whose rest is
// at the front of bits.
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
	numLiterals  = 288 // 286 and 287 occur only in the fixed code
	numDistances = 32

	// A complete code needs at most 2342 entries for literals and 402 for
	// distances, in first and second tables together; see "enough.c" of zlib.
	// Powers of two save bounds checks.
	literalSize  = 4096
	distanceSize = 512
)

// A symbolValue is the value of a symbol for a length or a distance: base plus
// the number in the extra bits.
type symbolValue struct {
	base  uint16
	extra uint8 // number of extra bits
}

// lengthSymbols are the length codes 257 to 285: RFC 1951, section 3.2.5.
var lengthSymbols = [...]symbolValue{
	{3, 0}, {4, 0}, {5, 0}, {6, 0}, {7, 0}, {8, 0}, {9, 0}, {10, 0},
	{11, 1}, {13, 1}, {15, 1}, {17, 1}, {19, 2}, {23, 2}, {27, 2}, {31, 2},
	{35, 3}, {43, 3}, {51, 3}, {59, 3}, {67, 4}, {83, 4}, {99, 4}, {115, 4},
	{131, 5}, {163, 5}, {195, 5}, {227, 5}, {258, 0},
}

// distanceSymbols are the distance codes 0 to 29: RFC 1951, section 3.2.5.
var distanceSymbols = [...]symbolValue{
	{1, 0}, {2, 0}, {3, 0}, {4, 0}, {5, 1}, {7, 1}, {9, 2}, {13, 2},
	{17, 3}, {25, 3}, {33, 4}, {49, 4}, {65, 5}, {97, 5}, {129, 6}, {193, 6},
	{257, 7}, {385, 7}, {513, 8}, {769, 8}, {1025, 9}, {1537, 9}, {2049, 10}, {3073, 10},
	{4097, 11}, {6145, 11}, {8193, 12}, {12289, 12}, {16385, 13}, {24577, 13},
}

func (v symbolValue) entry() entry { return entry(v.base)<<valueShift | entry(v.extra) }

// literalEntry returns the entry of a literal or length symbol, without the
// length of its code word.
func literalEntry(symbol int) entry {
	switch {
	case symbol < 256:
		return isLiteral | entry(symbol)<<valueShift
	case symbol == 256:
		return isEnd
	case symbol-257 < len(lengthSymbols):
		return lengthSymbols[symbol-257].entry()
	}
	return isInvalid
}

// distanceEntry returns the entry of a distance symbol, without the length of
// its code word.
func distanceEntry(symbol int) entry {
	if symbol < len(distanceSymbols) {
		return distanceSymbols[symbol].entry()
	}
	return isInvalid
}

// plainEntry returns the entry of a symbol of the code that encodes the code
// lengths, without the length of its code word.
func plainEntry(symbol int) entry { return entry(symbol) << valueShift }

// build fills table for the code with these code word lengths: RFC 1951,
// section 3.2.2. of returns the entry of a symbol. build returns false if the
// code is over-subscribed or incomplete. Like zlib it accepts an incomplete
// code that is empty or has only one word of one bit.
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

// builder enters code words into tables, in the order of their codes.
type builder struct {
	table []entry
	bits  int // index bits of the first table
	free  int // start of the next second table
	count [maxCodeBits + 2]int

	prefix    int // low bits that all words in the second table share, reversed
	start     int // of the second table
	indexBits int // of the second table, 0 if there is none yet
}

// put enters a code word of n bits. The stream has the highest bit of a code
// word first, so the index is the code word in reverse.
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

// second starts the second table for prefix. It makes the table large enough
// for all remaining words that can share the prefix.
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
