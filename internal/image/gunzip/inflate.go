package gunzip

import (
	"encoding/binary"
	"errors"
	"io"
)

const (
	window   = 32 << 10    // how far back a match reaches: RFC 1951, section 2
	inSize   = 128 << 10   // bytes of input that are read at a time
	inPad    = 64          // zeros behind the end of the input, for reads of whole words
	inNeed   = 16          // bytes of input that one round of the decoder may touch
	outSize  = 192 << 10   // bytes decoded at a time
	outSlack = 2 + 258 + 7 // what a round may write behind that: two literals, a match and a rest of a word
)

var errCorrupt = errors.New("gzip: deflate data are corrupt")

// inflater decodes one deflate stream after the other from a source.
type inflater struct {
	r     io.Reader
	in    []byte // inSize and inPad
	inPos int    // next byte that is not in bits
	inEnd int
	eof   bool

	bits  uint64 // next bits of the stream, the lowest first
	nbits uint   // how many of them count; those above are right too, but not taken

	out   []byte // window, outSize and outSlack
	outAt int    // end of what is decoded
	base  int    // begin of the stream in out, or of the window

	last     bool // the block is the last one of its stream
	stored   int  // bytes left of a stored block
	literal  *[literalSize]entry
	distance *[distanceSize]entry

	dynamicLiteral, fixedLiteral   *[literalSize]entry
	dynamicDistance, fixedDistance *[distanceSize]entry
}

func newInflater(r io.Reader) *inflater {
	return &inflater{
		r: r, in: make([]byte, inSize+inPad), out: make([]byte, window+outSize+outSlack),
		dynamicLiteral: new([literalSize]entry), dynamicDistance: new([distanceSize]entry),
	}
}

// more makes at least inNeed bytes of input available, or sees to it that
// zeros follow the last one. Taking of those is the error.
func (d *inflater) more() error {
	if !d.eof && d.inEnd-d.inPos < inNeed {
		const keep = 8 // bytes that may still be given back
		from := max(d.inPos-keep, 0)
		d.inEnd = copy(d.in, d.in[from:d.inEnd])
		d.inPos -= from
	}
	for !d.eof && d.inEnd-d.inPos < inNeed {
		n, err := d.r.Read(d.in[d.inEnd:inSize])
		d.inEnd += n
		if err == io.EOF { // the bare value: what wraps it is a network's error
			d.eof = true
			clear(d.in[d.inEnd:])
		} else if err != nil {
			return err
		}
	}
	if d.inPos-int(d.nbits/8) > d.inEnd {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// safe is the input position up to which a round of the decoder needs no
// call of more.
func (d *inflater) safe() int { return max(d.inEnd-inNeed, d.inPos) }

// corrupt is the error where data make no sense. It must not blame them for
// what is missing: eight bytes of trailer follow a whole stream, so that only
// in one that is cut off more bits are at hand than there are.
func (d *inflater) corrupt() error {
	if d.inPos > d.inEnd {
		return io.ErrUnexpectedEOF
	}
	return errCorrupt
}

// take returns the next n bits, at most 16.
func (d *inflater) take(n uint) (int, error) {
	if d.nbits < n {
		if err := d.refill(); err != nil {
			return 0, err
		}
	}
	v := int(d.bits & (1<<n - 1))
	d.bits >>= n
	d.nbits -= n
	return v, nil
}

// align drops the rest of the current byte and gives whole ones back, so that
// the input goes on at inPos.
func (d *inflater) align() error {
	d.inPos -= int(d.nbits / 8)
	d.bits, d.nbits = 0, 0
	if d.inPos > d.inEnd {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// begin starts a stream. A match cannot reach into the one before it.
func (d *inflater) begin() {
	d.base, d.last, d.stored, d.literal = d.outAt, false, 0, nil
}

// slide makes room in out, behind the window.
func (d *inflater) slide() {
	if d.outAt >= window+outSize {
		shift := d.outAt - window
		copy(d.out, d.out[shift:d.outAt])
		d.outAt, d.base = window, max(d.base-shift, 0)
	}
}

// decode appends to out until that is full or the stream ends: then done is
// true, and the input stands behind the stream.
func (d *inflater) decode() (done bool, err error) {
	for d.outAt < window+outSize {
		switch {
		case d.stored > 0:
			err = d.copyStored()
		case d.literal != nil:
			err = d.decodeBlock()
		case d.last:
			return true, d.align()
		default:
			err = d.blockHeader()
		}
		if err != nil {
			return false, err
		}
	}
	return false, nil
}

func (d *inflater) copyStored() error {
	if err := d.more(); err != nil {
		return err
	}
	n := min(d.stored, d.inEnd-d.inPos, window+outSize-d.outAt)
	if n <= 0 {
		return io.ErrUnexpectedEOF
	}
	copy(d.out[d.outAt:], d.in[d.inPos:d.inPos+n])
	d.inPos += n
	d.outAt += n
	d.stored -= n
	return nil
}

// decodeBlock decodes symbols until the end of the block, or until out is
// full: RFC 1951, section 3.2.3. A round takes two literals at most and what
// follows them. This loop is where the time goes: its state is in local
// variables.
func (d *inflater) decodeBlock() error {
	literal, distance := d.literal, d.distance
	in, inPos, inSafe, out, at := d.in, d.inPos, d.inPos-1, d.out, d.outAt
	bits, nbits := d.bits, d.nbits
	for at < window+outSize {
		if inPos > inSafe {
			d.inPos, d.nbits = inPos, nbits
			if err := d.more(); err != nil {
				return err
			}
			inPos, inSafe = d.inPos, d.safe()
		}
		bits, nbits, inPos = topUp(in, bits, nbits, inPos)
		e := literal[bits%(1<<literalBits)]
		if e&isLiteral != 0 {
			out[at] = e.byte()
			at++
			bits, nbits = drop(bits, nbits, e)
			e = literal[bits%(1<<literalBits)]
			if e&isLiteral != 0 {
				out[at] = e.byte()
				at++
				bits, nbits = drop(bits, nbits, e)
				e = literal[bits%(1<<literalBits)]
			}
			bits, nbits, inPos = topUp(in, bits, nbits, inPos)
		}
		if e&isPointer != 0 {
			bits, nbits = drop(bits, nbits, e)
			e = literal[(e.value()+e.index(bits))%literalSize]
		}
		if e&(isLiteral|isEnd|isInvalid) != 0 {
			bits, nbits = drop(bits, nbits, e)
			if e&isLiteral != 0 {
				out[at] = e.byte()
				at++
				continue
			}
			d.bits, d.nbits, d.inPos, d.outAt, d.literal = bits, nbits, inPos, at, nil
			if e&isInvalid != 0 {
				return d.corrupt()
			}
			return nil
		}
		length := e.value() + e.extra(bits)
		bits, nbits = drop(bits, nbits, e)
		e = distance[bits%(1<<distanceBits)]
		if e&isPointer != 0 {
			bits, nbits = drop(bits, nbits, e)
			e = distance[(e.value()+e.index(bits))%distanceSize]
		}
		dist := e.value() + e.extra(bits)
		if dist > uint64(at-d.base) || e&isInvalid != 0 {
			d.inPos = inPos
			return d.corrupt()
		}
		bits, nbits = drop(bits, nbits, e)
		at = copyMatch(out, at, int(dist), int(length))
	}
	d.bits, d.nbits, d.inPos, d.outAt = bits, nbits, inPos, at
	return nil
}

// topUp makes 56 bits or more available.
func topUp(in []byte, bits uint64, nbits uint, pos int) (uint64, uint, int) {
	bits |= binary.LittleEndian.Uint64(in[pos:]) << (nbits & 63)
	return bits, nbits | 56, pos + int(63-nbits)>>3
}

func drop(bits uint64, nbits uint, e entry) (uint64, uint) {
	return bits >> (e & bitsMask), nbits - uint(e&bitsMask)
}

// copyMatch repeats what stands dist bytes before at and returns where it
// ends. It writes up to 7 bytes more.
func copyMatch(out []byte, at, dist, length int) int {
	from, end := at-dist, at+length
	switch {
	case dist >= 8:
		for ; at < end; at, from = at+8, from+8 {
			binary.LittleEndian.PutUint64(out[at:], binary.LittleEndian.Uint64(out[from:]))
		}
	case dist == 1:
		word := uint64(out[from]) * 0x0101010101010101
		for ; at < end; at += 8 {
			binary.LittleEndian.PutUint64(out[at:], word)
		}
	default:
		for ; at < end; at, from = at+1, from+1 {
			out[at] = out[from]
		}
	}
	return end
}

// bytes takes n whole bytes, at most inNeed. With an error it returns what
// there is.
func (d *inflater) bytes(n int) ([]byte, error) {
	if err := d.more(); err != nil {
		return nil, err
	}
	b := d.in[d.inPos:min(d.inPos+n, d.inEnd)]
	d.inPos += len(b)
	if len(b) < n {
		return b, io.ErrUnexpectedEOF
	}
	return b, nil
}

func (d *inflater) refill() error {
	if err := d.more(); err != nil {
		return err
	}
	d.bits, d.nbits, d.inPos = topUp(d.in, d.bits, d.nbits, d.inPos)
	return nil
}
