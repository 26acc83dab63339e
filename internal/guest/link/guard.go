package link

import (
	"encoding/binary"
	"errors"
)

// Of yamux's frames (hashicorp/yamux, spec.md): a header of version, type,
// flags, stream and length. Only a data frame has as many bytes after it as
// its length says.
const (
	muxHeader = 12
	muxData   = 0
	muxPing   = 2
	muxSYN    = 1 // the flag that opens a stream
)

var (
	errPing = errors.New("the other side sent a ping")
	errSYN  = errors.New("the guest opened a stream")
)

// A guard looks for the frames that the multiplexer would answer, whether or
// not the answers are taken. For each ping it starts a goroutine that waits to
// answer, so that a guest which sends them and reads nothing would take the
// host's memory. Neither side of this package sends one. Nor does a guest
// open streams, which would be buffers that no host ever empties, and then a
// reset for each that is one too many.
type guard struct {
	noStreams bool // the other side may not open any
	header    [muxHeader]byte
	have      int    // bytes of header
	data      uint32 // bytes of a data frame that are still to come
}

// check takes the next bytes of the session, cut anywhere.
func (g *guard) check(p []byte) error {
	for len(p) > 0 {
		if g.data > 0 {
			n := min(uint64(g.data), uint64(len(p)))
			g.data -= uint32(n) //nolint:gosec // n is at most g.data
			p = p[n:]
			continue
		}
		n := copy(g.header[g.have:], p)
		p = p[n:]
		if g.have += n; g.have < muxHeader {
			return nil
		}
		g.have = 0
		if err := g.frame(); err != nil {
			return err
		}
	}
	return nil
}

func (g *guard) frame() error {
	kind := g.header[1]
	if kind == muxPing {
		return errPing
	}
	if g.noStreams && binary.BigEndian.Uint16(g.header[2:])&muxSYN != 0 {
		return errSYN
	}
	if kind == muxData {
		g.data = binary.BigEndian.Uint32(g.header[8:])
	}
	return nil
}
