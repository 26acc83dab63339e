package link

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// kind says what a frame is for.
type kind byte

const (
	hello   kind = 1 + iota // host: a new session; repeated until welcome
	welcome                 // guest: the session of that id has begun
	data                    // both: bytes of the session
	bye                     // both: there is no session of that id, or no longer
)

// greeting is the payload of hello and welcome. Its last byte is the version
// of this protocol.
const greeting = "banger link \x01"

// id names a session; the host draws it at random.
type id [8]byte

// Sizes in bytes.
const (
	headerSize = 1 + len(id{})
	maxPayload = 32 << 10
	// maxEncoded is a frame's most on the wire: one byte more for each 254,
	// and the delimiter.
	maxEncoded = headerSize + maxPayload + (headerSize+maxPayload)/254 + 2
)

// frame is what a reader returns. The payload is valid until the next call.
type frame struct {
	kind    kind
	id      id
	payload []byte
}

// appendFrame adds a frame to dst as it stands on the wire: kind, id and
// payload in consistent overhead byte stuffing (S. Cheshire, M. Baker,
// SIGCOMM 1997), which has no zero byte, and then a zero. A reader that comes
// upon the middle of a frame finds the next one's start by that. It uses
// scratch's memory.
func appendFrame(dst []byte, f frame, scratch *[]byte) []byte {
	raw := append(append(append((*scratch)[:0], byte(f.kind)), f.id[:]...), f.payload...)
	*scratch = raw
	for {
		run := raw[:min(len(raw), 254)]
		zero := bytes.IndexByte(run, 0)
		if zero >= 0 {
			run = run[:zero]
		}
		dst = append(append(dst, byte(len(run)+1)), run...)
		raw = raw[len(run):]
		if zero >= 0 {
			raw = raw[1:] // the code byte stands for it; what follows has its own, be it empty
		} else if len(raw) == 0 {
			return append(dst, 0)
		}
	}
}

var errStuffing = errors.New("bad byte stuffing")

// unstuff undoes the stuffing in place; the delimiter is gone already.
func unstuff(in []byte) ([]byte, error) {
	out := in[:0]
	for len(in) > 0 {
		code := int(in[0])
		if code == 0 || code > len(in) {
			return nil, errStuffing
		}
		out = append(out, in[1:code]...)
		in = in[code:]
		if code < 255 && len(in) > 0 {
			out = append(out, 0)
		}
	}
	return out, nil
}

// A reader finds the frames in a byte stream. What is no frame is passed
// over: it is the rest of what another host sent before, or the first part of
// it, and the sessions' ids keep apart what looks whole.
type reader struct {
	r *bufio.Reader
}

func newReader(r io.Reader) *reader {
	return &reader{bufio.NewReaderSize(r, maxEncoded)}
}

// next waits for a frame. Its error is the stream's own.
func (r *reader) next() (frame, error) {
	for {
		line, err := r.line()
		if err != nil {
			return frame{}, err
		}
		if f, ok := parse(line); ok {
			return f, nil
		}
	}
}

// line returns the bytes before the next zero, none when they are too many.
func (r *reader) line() ([]byte, error) {
	line, err := r.r.ReadSlice(0)
	if err == nil {
		return line[:len(line)-1], nil
	}
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = r.r.ReadSlice(0)
	}
	return nil, err
}

func parse(line []byte) (frame, bool) {
	raw, err := unstuff(line)
	if err != nil || len(raw) < headerSize || len(raw) > headerSize+maxPayload {
		return frame{}, false
	}
	f := frame{kind: kind(raw[0]), id: id(raw[1:headerSize]), payload: raw[headerSize:]}
	switch f.kind {
	case hello, welcome:
		return f, len(f.payload) == len(greeting) && string(f.payload[:len(greeting)-1]) == greeting[:len(greeting)-1]
	case data:
		return f, len(f.payload) > 0
	case bye:
		return f, len(f.payload) == 0
	}
	return frame{}, false
}
