// Package compression reads compressed data of foreign origin: it detects the
// format by the first bytes and refuses output beyond the caller's limit.
//
// It reads gzip, zstd, xz, bzip2, and the legacy frames of lz4, which are the
// formats that Linux and Debian use for kernels, modules and packages. It
// writes none of them.
package compression

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// The formats that Detect returns.
const (
	None  = ""
	Gzip  = "gzip"
	Zstd  = "zstd"
	XZ    = "xz"
	Bzip2 = "bzip2"
	LZ4   = "lz4"
)

// maxWindow limits the memory in bytes that a stream can make its decompressor
// allocate. It is the default limit of the zstd tool (zstd(1), --memory).
const maxWindow = 128 << 20

const (
	longestMagic = 6
	bufferSize   = 64 << 10 // bytes
)

// Detect returns the format of data, or None if its first bytes belong to no
// known format. The magic numbers are those of RFC 1952 (gzip), RFC 8878
// section 3.1.1 (zstd), section 2.1.1.1 of the xz format, the bzip2 format, and
// the legacy frame of the lz4 frame format.
func Detect(data []byte) string {
	for _, m := range [...]struct{ format, magic string }{
		{Gzip, "\x1f\x8b"},
		{Zstd, "\x28\xb5\x2f\xfd"},
		{XZ, "\xfd7zXZ\x00"},
		{Bzip2, "BZh"},
		{LZ4, "\x02\x21\x4c\x18"},
	} {
		if bytes.HasPrefix(data, []byte(m.magic)) {
			return m.format
		}
	}
	return None
}

// Decompress returns data decompressed, or data itself if its format is None.
// It returns a *SizeError if the result has more than limit bytes.
func Decompress(ctx context.Context, data []byte, limit int64) (out []byte, err error) {
	r, err := newReader(Detect(data), ContextReader(ctx, bytes.NewReader(data)))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return ReadAll(ContextReader(ctx, r), limit)
}

// Copy decompresses r into w. It returns a *SizeError after it has written one
// byte more than limit.
func Copy(ctx context.Context, w io.Writer, r io.Reader, limit int64) error {
	br := bufio.NewReaderSize(ContextReader(ctx, r), 1<<20)
	start, err := br.Peek(longestMagic)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	plain, err := newReader(Detect(start), br)
	if err != nil {
		return err
	}
	defer plain.Close()
	n, err := io.Copy(w, io.LimitReader(ContextReader(ctx, plain), limit+1))
	if err == nil && n > limit {
		err = &SizeError{limit}
	}
	return err
}

// newReader returns a reader that decompresses r, which is in the given format.
func newReader(format string, r io.Reader) (io.ReadCloser, error) {
	switch format {
	case None:
		return io.NopCloser(r), nil
	case Gzip:
		return gzip.NewReader(r)
	case Zstd:
		z, err := zstd.NewReader(r, zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	case XZ:
		br := bufio.NewReaderSize(r, bufferSize)
		if err := checkDictionary(br); err != nil {
			return nil, err
		}
		x, err := xz.ReaderConfig{SingleStream: true}.NewReader(br)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(x), nil
	case Bzip2:
		return io.NopCloser(bzip2.NewReader(r)), nil
	case LZ4:
		return io.NopCloser(&legacyLZ4{r: r}), nil
	}
	return nil, fmt.Errorf("unknown compression %q", format)
}

// checkDictionary refuses an xz stream whose dictionary is larger than
// maxWindow, because the library allocates the whole dictionary at once. It
// reads the header of the first block, sections 2.1.1 and 3.1 of the format.
// A later block with a larger dictionary passes, but encoders give all blocks of
// a stream the same one, and the reader stops after the first stream.
// checkDictionary accepts a malformed header; the library refuses it later.
func checkDictionary(r *bufio.Reader) error {
	const (
		blockAt   = 12 // size in bytes of the stream header
		maxHead   = 1024
		sizes     = 0xc0 // flags: the compressed and the uncompressed size are present
		lzma2     = 0x21
		maxDictAt = 40 // largest property that stands for a size
	)
	head, err := r.Peek(blockAt + maxHead)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if len(head) < blockAt+2 {
		return nil
	}
	flags, rest := head[blockAt+1], head[blockAt+2:]
	for bit := flags & sizes; bit != 0; bit &= bit - 1 {
		_, n := binary.Uvarint(rest)
		if n <= 0 {
			return nil
		}
		rest = rest[n:]
	}
	if len(rest) < 3 || rest[0] != lzma2 || rest[1] != 1 || rest[2] > maxDictAt {
		return nil
	}
	if size := int64(2|rest[2]&1) << (rest[2]/2 + 11); size > maxWindow {
		return fmt.Errorf("xz: dictionary of %d bytes, at most %d are taken", size, maxWindow)
	}
	return nil
}

// ContextReader returns a reader of r that returns ctx's error once ctx is
// done. Around a decompressor one is needed on either side: a few bytes of
// input can give much output, and much input can give few bytes of output.
func ContextReader(ctx context.Context, r io.Reader) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return r.Read(p)
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// A SizeError reports input, or its decompressed form, of more than Limit bytes.
type SizeError struct{ Limit int64 }

func (e *SizeError) Error() string { return fmt.Sprintf("more than %d bytes", e.Limit) }

// ReadAll reads r to its end as it is, without decompressing it. It returns a
// *SizeError if r has more than limit bytes.
func ReadAll(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, &SizeError{limit}
	}
	return data, nil
}
