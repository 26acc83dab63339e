package compression

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/pierrec/lz4/v4"
)

const (
	lz4Block = 8 << 20 // bytes, the most that a block of a legacy frame holds
	lz4Magic = 0x184c2102
)

// legacyLZ4 reads the legacy frames of the lz4 frame format, which the build of
// Linux uses: a magic number, then blocks that begin with their length.
type legacyLZ4 struct {
	r       io.Reader
	begun   bool // the magic number was read
	pending []byte
	in, out []byte
}

func (l *legacyLZ4) Read(p []byte) (int, error) {
	for len(l.pending) == 0 {
		if err := l.block(); err != nil {
			return 0, err
		}
	}
	n := copy(p, l.pending)
	l.pending = l.pending[n:]
	return n, nil
}

// block decompresses the next block into l.pending, or skips a magic number:
// a file may have several frames.
func (l *legacyLZ4) block() error {
	var head [4]byte
	if _, err := io.ReadFull(l.r, head[:]); err != nil {
		return err
	}
	size := binary.LittleEndian.Uint32(head[:])
	switch {
	case size == lz4Magic:
		l.begun = true
		return nil
	case !l.begun:
		return fmt.Errorf("lz4: no legacy frame")
	case size == 0 || int64(size) > int64(lz4.CompressBlockBound(lz4Block)):
		return fmt.Errorf("lz4: block of %d bytes", size)
	}
	if l.out == nil {
		l.in, l.out = make([]byte, lz4.CompressBlockBound(lz4Block)), make([]byte, lz4Block)
	}
	if _, err := io.ReadFull(l.r, l.in[:size]); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // the frame does not end after a length
		}
		return fmt.Errorf("lz4: %w", err)
	}
	n, err := lz4.UncompressBlock(l.in[:size], l.out)
	if err != nil {
		return fmt.Errorf("lz4: %w", err)
	}
	l.pending = l.out[:n]
	return nil
}
