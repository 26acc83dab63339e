package gunzip

import (
	"encoding/binary"
	"errors"
	"io"
)

const (
	window   = 32 << 10    // bytes that a match reaches back at most: RFC 1951, section 2
	inSize   = 128 << 10   // bytes of input per read
	inPad    = 64          // zeros after the end of the input, so that reads of whole words stay in the buffer
	inNeed   = 16          // bytes of input that one round of the decoder may read
	outSize  = 192 << 10   // bytes decoded at a time
	outSlack = 2 + 258 + 7 // bytes that a round may write after outSize: two literals, a match and a partial word
)

var errCorrupt = errors.New("gzip: deflate data is corrupt")

// inflater decodes one deflate stream after the other from a source.
type inflater struct {
	r     io.Reader
	in    []byte // inSize and inPad
	inPos int    // next byte that is not in bits
	inEnd int
	eof   bool

	bits  uint64 // next bits of the stream, the lowest first
	nbits uint   // number of valid bits; the bits above are bits of the stream too, but inPos does not count them

	out   []byte // window, outSize and outSlack
	outAt int    // end of the decoded data
	base  int    // start in out of the stream, or of the window if the stream is longer

	last     bool // the block is the last one of its stream
	stored   int  // remaining bytes of a stored block
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

// fillInput makes at least inNeed bytes of input available. If the input ends
// before, zeros follow its last byte, and fillInput returns
// io.ErrUnexpectedEOF once the decoder has consumed any of them.
func (d *inflater) fillInput() error {
	if !d.eof && d.inEnd-d.inPos < inNeed {
		const keep = 8 // bytes that align may return to the input
		from := max(d.inPos-keep, 0)
		d.inEnd = copy(d.in, d.in[from:d.inEnd])
		d.inPos -= from
	}
	for !d.eof && d.inEnd-d.inPos < inNeed {
		n, err := d.r.Read(d.in[d.inEnd:inSize])
		d.inEnd += n
		if err == io.EOF { // the bare value; a broken connection returns an error that wraps it
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

// safe returns the input position up to which a round of the decoder needs no
// call of fillInput.
func (d *inflater) safe() int { return max(d.inEnd-inNeed, d.inPos) }

// corrupt returns the error for invalid data. If the decoder has read past
// the end of the input, the invalid data may be the zeros after it, so the
// error is io.ErrUnexpectedEOF. That happens only if the input is truncated,
// because eight bytes of trailer follow a complete stream.
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

// align skips the rest of the current byte and returns whole bytes of bits to
// the input, so that the input continues at inPos.
func (d *inflater) align() error {
	d.inPos -= int(d.nbits / 8)
	d.bits, d.nbits = 0, 0
	if d.inPos > d.inEnd {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// begin starts a stream. It sets base so that a match cannot reach into the
// previous stream.
func (d *inflater) begin() {
	d.base, d.last, d.stored, d.literal = d.outAt, false, 0, nil
}

// slide makes room in out if it is full: it moves the window to the start.
func (d *inflater) slide() {
	if d.outAt >= window+outSize {
		shift := d.outAt - window
		copy(d.out, d.out[shift:d.outAt])
		d.outAt, d.base = window, max(d.base-shift, 0)
	}
}

// decode appends to out until out is full or the stream ends. At the end of
// the stream done is true, and the input continues after the stream.
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
	if err := d.fillInput(); err != nil {
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
// full: RFC 1951, section 3.2.3. A round decodes at most two literals and the
// symbol after them. Most of the time is spent in this loop, so its state is
// in local variables.
func (d *inflater) decodeBlock() error {
	literal, distance := d.literal, d.distance
	in, inPos, inSafe, out, at := d.in, d.inPos, d.inPos-1, d.out, d.outAt
	bits, nbits := d.bits, d.nbits
	for at < window+outSize {
		if inPos > inSafe {
			d.inPos, d.nbits = inPos, nbits
			if err := d.fillInput(); err != nil {
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

// topUp adds bytes of in to bits, so that at least 56 bits are valid.
func topUp(in []byte, bits uint64, nbits uint, pos int) (uint64, uint, int) {
	bits |= binary.LittleEndian.Uint64(in[pos:]) << (nbits & 63)
	return bits, nbits | 56, pos + int(63-nbits)>>3
}

// drop removes the code word of e and its extra bits from bits.
func drop(bits uint64, nbits uint, e entry) (uint64, uint) {
	return bits >> (e & bitsMask), nbits - uint(e&bitsMask)
}

// copyMatch copies length bytes from dist bytes before at to at, and returns
// the end of the copy. It may write up to 7 bytes after the end.
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

// bytes consumes n whole bytes, at most inNeed. If the input ends before, it
// returns the remaining bytes and io.ErrUnexpectedEOF.
func (d *inflater) bytes(n int) ([]byte, error) {
	if err := d.fillInput(); err != nil {
		return nil, err
	}
	b := d.in[d.inPos:min(d.inPos+n, d.inEnd)]
	d.inPos += len(b)
	if len(b) < n {
		return b, io.ErrUnexpectedEOF
	}
	return b, nil
}

// refill adds bits of the input to d.bits, so that at least 56 are valid.
func (d *inflater) refill() error {
	if err := d.fillInput(); err != nil {
		return err
	}
	d.bits, d.nbits, d.inPos = topUp(d.in, d.bits, d.nbits, d.inPos)
	return nil
}
