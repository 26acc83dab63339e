package link

import (
	"encoding/binary"
	"errors"
)

// The header of yamux's frames (hashicorp/yamux, spec.md): version, type,
// flags, stream and length. Only a data frame is followed by as many bytes as
// its length field has.
const (
	muxHeader = 12
	muxData   = 0
	muxPing   = 2
	muxSYN    = 1 // flag that opens a stream
)

var (
	errPing = errors.New("the other side sent a ping")
	errSYN  = errors.New("the guest opened a stream")
)

// A guard refuses frames that the multiplexer would answer without limit. For
// each ping, the multiplexer starts a goroutine that waits until the answer is
// written, so a guest that sends pings and reads nothing would exhaust the
// host's memory. Neither side of this package sends pings.
//
// A guest does not open streams either. The host would buffer each of them
// without reading it, and would send a reset for each one beyond its limit.
type guard struct {
	noStreams bool // the other side may not open streams
	header    [muxHeader]byte
	have      int    // number of bytes in header
	data      uint32 // number of bytes of the current data frame that are still to come
}

// check examines the next bytes of the session, which may start and end
// anywhere in a frame.
func (g *guard) check(p []byte) error {
	for len(p) > 0 {
		if g.data > 0 {
			n := min(uint64(g.data), uint64(len(p)))
			g.data -= uint32(n)
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
