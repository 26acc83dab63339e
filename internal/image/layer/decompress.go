package layer

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/banger-vm/banger/internal/image/gunzip"
)

// maxWindow is the largest zstd window that is accepted, in bytes: that of
// the reference tool's default limit (zstd(1), --memory).
const maxWindow = 128 << 20

const sourceBuffer = 256 << 10 // bytes

// magics are the first bytes of compressed streams: gzip by RFC 1952, zstd
// frames by RFC 8878 section 3.1.1, and forms that are known but not taken.
// A tar begins with a name, which none of these can be confused with.
var magics = []struct { //nolint:gochecknoglobals // a table of constants
	name  string
	magic string
}{
	{"gzip", "\x1f\x8b"},
	{"zstd", "\x28\xb5\x2f\xfd"},
	{"xz", "\xfd7zXZ\x00"},
	{"bzip2", "BZh"},
	{"lz4", "\x04\x22\x4d\x18"},
	{"zip", "PK\x03\x04"},
}

// decompress returns the plain stream in r and what it was compressed with.
func decompress(r *sourceReader) (io.ReadCloser, string, error) {
	start, err := r.Peek(6)
	if err != nil && !isEOF(err) {
		return nil, "", err
	}
	switch name := compression(start); name {
	case "none":
		return io.NopCloser(r.Reader), name, nil
	case "gzip":
		return io.NopCloser(gunzip.NewReader(r)), name, nil
	case "zstd":
		z, err := zstd.NewReader(r.Reader, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, "", fmt.Errorf("read zstd header: %w", err)
		}
		return &zstdFrames{z}, name, nil
	default:
		return nil, "", fmt.Errorf("layer is compressed with %s: want gzip, zstd or plain tar", name)
	}
}

func compression(start []byte) string {
	// A skippable frame of zstd may come first: 0x184D2A50 to 0x184D2A5F.
	if len(start) >= 4 && start[0]&0xf0 == 0x50 && bytes.Equal(start[1:4], []byte("\x2a\x4d\x18")) {
		return "zstd"
	}
	for _, m := range magics {
		if bytes.HasPrefix(start, []byte(m.magic)) {
			return m.name
		}
	}
	return "none"
}

var errTrailing = errors.New("trailing data after the compressed layer")

// zstdFrames reads the frames of a zstd stream.
type zstdFrames struct{ d *zstd.Decoder }

func (z *zstdFrames) Read(p []byte) (int, error) {
	n, err := z.d.Read(p)
	if errors.Is(err, zstd.ErrMagicMismatch) { // the first frame's is known to fit
		err = errTrailing
	}
	return n, err
}

// Close ends the decoder's work.
func (z *zstdFrames) Close() error {
	z.d.Close()
	return nil
}

// sourceReader buffers the stored stream.
type sourceReader struct {
	*bufio.Reader
	noted *notingReader
}

func newSource(r io.Reader) *sourceReader {
	noted := &notingReader{r: r}
	return &sourceReader{bufio.NewReaderSize(noted, sourceBuffer), noted}
}

// notingReader remembers an error that is not the end, since decoders turn it
// into one of their own.
type notingReader struct {
	r   io.Reader
	err error
}

func (n *notingReader) Read(p []byte) (int, error) {
	k, err := n.r.Read(p)
	if err != nil && !isEOF(err) && n.err == nil {
		n.err = err
	}
	return k, err
}

// because returns the error of the source where it is the cause of err.
func (s *sourceReader) because(err error) error {
	if err != nil && s.noted.err != nil {
		return s.noted.err
	}
	return err
}

// atEnd checks that the source ends where the compressed stream did, and by
// that lets a source that verifies itself do so.
func (s *sourceReader) atEnd() error {
	_, err := s.ReadByte()
	switch {
	case err == nil:
		return errTrailing
	case isEOF(err):
		return nil
	}
	return err
}
