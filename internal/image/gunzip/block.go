package gunzip

// blockHeader reads the header of a block and prepares d for its data: RFC
// 1951, sections 3.2.3 to 3.2.7.
func (d *inflater) blockHeader() error {
	v, err := d.take(3)
	if err != nil {
		return err
	}
	d.last = v&1 != 0
	switch v >> 1 {
	case 0:
		return d.storedHeader()
	case 1:
		d.fixedCode()
		return nil
	case 2:
		return d.dynamicCode()
	}
	return d.corrupt()
}

func (d *inflater) storedHeader() error {
	if err := d.align(); err != nil {
		return err
	}
	n, err := d.take(16)
	if err != nil {
		return err
	}
	inverse, err := d.take(16)
	if err != nil {
		return err
	}
	if n != ^inverse&0xffff {
		return d.corrupt()
	}
	d.stored = n
	return d.align()
}

// fixedCode selects the tables of the fixed code: RFC 1951, section 3.2.6. It
// builds them on the first call.
func (d *inflater) fixedCode() {
	if d.fixedLiteral == nil {
		d.fixedLiteral, d.fixedDistance = new([literalSize]entry), new([distanceSize]entry)
		var lengths [numLiterals]uint8
		for i := range lengths {
			switch {
			case i < 144 || i >= 280:
				lengths[i] = 8
			case i < 256:
				lengths[i] = 9
			default:
				lengths[i] = 7
			}
		}
		build(d.fixedLiteral[:], literalBits, lengths[:], literalEntry)
		for i := range lengths[:numDistances] {
			lengths[i] = 5
		}
		build(d.fixedDistance[:], distanceBits, lengths[:numDistances], distanceEntry)
	}
	d.literal, d.distance = d.fixedLiteral, d.fixedDistance
}

// dynamicCode reads the lengths of the code words and builds the tables: RFC
// 1951, section 3.2.7.
func (d *inflater) dynamicCode() error {
	v, err := d.take(14)
	if err != nil {
		return err
	}
	numLiteral, numDistance, numLengths := 257+v&31, 1+v>>5&31, 4+v>>10
	if numLiteral > 286 || numDistance > 30 {
		return d.corrupt()
	}
	lengths, err := d.codeLengths(numLiteral+numDistance, numLengths)
	if err != nil {
		return err
	}
	if lengths[256] == 0 ||
		!build(d.dynamicLiteral[:], literalBits, lengths[:numLiteral], literalEntry) ||
		!build(d.dynamicDistance[:], distanceBits, lengths[numLiteral:], distanceEntry) {
		return d.corrupt()
	}
	d.literal, d.distance = d.dynamicLiteral, d.dynamicDistance
	return nil
}

// codeLengths reads n lengths, which are encoded in a code of their own. That
// code is given by the first numLengths lengths.
func (d *inflater) codeLengths(n, numLengths int) ([]uint8, error) {
	var own [19]uint8
	for _, symbol := range []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}[:numLengths] {
		v, err := d.take(3)
		if err != nil {
			return nil, err
		}
		own[symbol] = uint8(v)
	}
	const ownBits = 7
	var table [1 << ownBits]entry
	if !build(table[:], ownBits, own[:], plainEntry) {
		return nil, d.corrupt()
	}
	lengths := make([]uint8, 0, numLiterals+numDistances+138)
	for len(lengths) < n {
		if err := d.refill(); err != nil {
			return nil, err
		}
		e := table[d.bits%(1<<ownBits)]
		if e&isInvalid != 0 {
			return nil, d.corrupt()
		}
		d.bits, d.nbits = drop(d.bits, d.nbits, e)
		if symbol := uint8(e.value()); symbol < 16 {
			lengths = append(lengths, symbol)
			continue
		}
		var err error
		if lengths, err = d.repeat(lengths, e.value()); err != nil {
			return nil, err
		}
	}
	if len(lengths) > n {
		return nil, d.corrupt()
	}
	return lengths, nil
}

// repeat appends the run of equal lengths that the symbol stands for, at most
// 138 of them.
func (d *inflater) repeat(lengths []uint8, symbol uint64) ([]uint8, error) {
	value, extra, times := uint8(0), uint(3), 3
	switch symbol {
	case 16:
		if len(lengths) == 0 {
			return nil, d.corrupt()
		}
		value, extra = lengths[len(lengths)-1], 2
	case 18:
		extra, times = 7, 11
	}
	more, err := d.take(extra)
	for range times + more {
		lengths = append(lengths, value)
	}
	return lengths, err
}
