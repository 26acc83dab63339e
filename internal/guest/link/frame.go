package link

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// kind is the type of a frame.
type kind byte

const (
	hello   kind = 1 + iota // host: starts a session; repeated until welcome
	welcome                 // guest: the session with this ID has started
	data                    // both: bytes of the session
	bye                     // both: the session with this ID has ended or does not exist
)

// greeting is the payload of hello and welcome. Its last byte is the version of
// this protocol.
const greeting = "banger link \x01"

// id identifies a session. The host chooses it at random.
type id [8]byte

// Sizes in bytes.
const (
	headerSize = 1 + len(id{})
	maxPayload = 32 << 10
	// maxEncoded is the maximum size of a frame on the wire. The encoding adds
	// one byte for each 254 bytes, and the delimiter.
	maxEncoded = headerSize + maxPayload + (headerSize+maxPayload)/254 + 2
)

// frame is a decoded frame. The payload of a frame from a reader is valid until
// the next call.
type frame struct {
	kind    kind
	id      id
	payload []byte
}

// appendFrame appends the encoding of a frame to dst: kind, ID and payload in
// consistent overhead byte stuffing (S. Cheshire, M. Baker, SIGCOMM 1997),
// which contains no zero byte, followed by a zero. So a reader that starts in
// the middle of a frame finds the start of the next one. scratch is a buffer
// that appendFrame reuses.
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
			raw = raw[1:] // the code byte encodes this zero; the next run gets a code byte even if it is empty
		} else if len(raw) == 0 {
			return append(dst, 0)
		}
	}
}

var errStuffing = errors.New("bad byte stuffing")

// unstuff decodes byte stuffing in place. in does not include the delimiter.
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

// A reader finds the frames in a byte stream. It skips bytes that are not a
// frame: they are the rest, or the first part, of a frame of an earlier host.
// The session IDs tell apart frames that are complete.
type reader struct {
	r *bufio.Reader
	// strict makes bytes that are not a frame an error.
	strict bool
}

var errGarbage = errors.New("bytes that are no frame")

func newReader(r io.Reader) *reader {
	return &reader{r: bufio.NewReaderSize(r, maxEncoded)}
}

// next waits for a frame. It returns errors of the stream, and errGarbage.
func (r *reader) next() (frame, error) {
	for {
		line, err := r.line()
		if err != nil {
			return frame{}, err
		}
		if f, ok := parse(line); ok {
			return f, nil
		}
		if r.strict && len(line) > 0 { // a zero before a frame makes an empty line
			return frame{}, errGarbage
		}
	}
}

// line returns the bytes before the next zero, or no bytes if there are more
// than a frame may have.
func (r *reader) line() ([]byte, error) {
	line, err := r.r.ReadSlice(0)
	if err == nil {
		return line[:len(line)-1], nil
	}
	if r.strict && errors.Is(err, bufio.ErrBufferFull) {
		return nil, errGarbage
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
