package layer

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/banger-vm/banger/internal/image/gunzip"
)

const sourceBuffer = 256 << 10 // bytes

// decompress returns the uncompressed stream in r and the name of its
// compression: gzip, zstd or none.
func decompress(ctx context.Context, r *sourceReader, w *Windows) (io.ReadCloser, string, error) {
	start, err := r.Peek(6)
	if err != nil && !isEOF(err) {
		return nil, "", err
	}
	switch name := compression(start); name {
	case "none":
		return io.NopCloser(r.Reader), name, nil
	case "gzip":
		return &gzipStream{gunzip.NewReader(r)}, name, nil
	case "zstd":
		z, err := w.open(ctx, r.Reader)
		return z, name, err
	default:
		return nil, "", fmt.Errorf("layer is compressed with %s: want gzip, zstd or plain tar", name)
	}
}

// compression returns the name of the format that a stream with these first
// bytes has. The magic numbers of gzip are from RFC 1952, those of zstd from
// RFC 8878, section 3.1.1. decompress refuses the other formats by name. A
// tar begins with a file name, so it is unlikely to match any of them.
func compression(start []byte) string {
	// A skippable frame of zstd may come first: 0x184D2A50 to 0x184D2A5F.
	if len(start) >= 4 && start[0]&0xf0 == 0x50 && bytes.Equal(start[1:4], []byte("\x2a\x4d\x18")) {
		return "zstd"
	}
	for _, m := range []struct{ name, magic string }{
		{"gzip", "\x1f\x8b"},
		{"zstd", "\x28\xb5\x2f\xfd"},
		{"xz", "\xfd7zXZ\x00"},
		{"bzip2", "BZh"},
		{"lz4", "\x04\x22\x4d\x18"},
		{"zip", "PK\x03\x04"},
	} {
		if bytes.HasPrefix(start, []byte(m.magic)) {
			return m.name
		}
	}
	return "none"
}

var errTrailing = errors.New("trailing data after the compressed layer")

// gzipStream is a gzip stream, which needs no Close.
type gzipStream struct{ *gunzip.Reader }

// Close implements io.Closer.
func (*gzipStream) Close() error { return nil }

// sourceReader buffers the stored stream.
type sourceReader struct {
	*bufio.Reader
	recorder *errorRecorder
}

func newSource(r io.Reader) *sourceReader {
	recorder := &errorRecorder{r: r}
	return &sourceReader{bufio.NewReaderSize(recorder, sourceBuffer), recorder}
}

// errorRecorder keeps the first error of r other than io.EOF, because
// decoders replace it by an error of their own.
type errorRecorder struct {
	r   io.Reader
	err error
}

func (e *errorRecorder) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if err != nil && !isEOF(err) && e.err == nil {
		e.err = err
	}
	return n, err
}

// cause returns the source's own error if there is one, because it then
// caused err. Otherwise cause returns err.
func (s *sourceReader) cause(err error) error {
	if err != nil && s.recorder.err != nil {
		return s.recorder.err
	}
	return err
}

// atEnd checks that the source ends with the compressed stream. The read also
// lets a source that verifies its content at the end report an error.
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
