package kernel

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
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
)

// maxWindow bounds in bytes what a compressed stream may have its reader keep
// in memory: that of the reference tool's default limit (zstd(1), --memory).
const maxWindow = 128 << 20

// magics are the first bytes of compressed streams: gzip by RFC 1952, zstd by
// RFC 8878 section 3.1.1, xz by section 2.1.1.1 of its format, legacy frames
// by the lz4 frame format.
var magics = []struct{ name, magic string }{
	{"gzip", "\x1f\x8b"},
	{"zstd", "\x28\xb5\x2f\xfd"},
	{"xz", "\xfd7zXZ\x00"},
	{"bzip2", "BZh"},
	{"lz4", "\x02\x21\x4c\x18"},
}

const (
	longestMagic = 6
	sourceBuffer = 64 << 10 // bytes
)

// compression returns the name of the format that start begins, "" for none
// that is known.
func compression(start []byte) string {
	for _, m := range magics {
		if bytes.HasPrefix(start, []byte(m.magic)) {
			return m.name
		}
	}
	return ""
}

// decompress returns what is in r, which is of the named format.
func decompress(format string, r io.Reader) (io.ReadCloser, error) {
	switch format {
	case "":
		return io.NopCloser(r), nil
	case "gzip":
		return gzip.NewReader(r)
	case "zstd":
		z, err := zstd.NewReader(r, zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	case "xz":
		br := bufio.NewReaderSize(r, sourceBuffer)
		if err := checkDictionary(br); err != nil {
			return nil, err
		}
		x, err := xz.ReaderConfig{SingleStream: true}.NewReader(br)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(x), nil
	case "bzip2":
		return io.NopCloser(bzip2.NewReader(r)), nil
	case "lz4":
		return io.NopCloser(&legacyLZ4{r: r}), nil
	}
	return nil, fmt.Errorf("unknown compression %q", format)
}

// checkDictionary refuses a stream of xz that asks for a larger dictionary
// than maxWindow, which the library would allocate at once. It looks at the
// first block, sections 2.1.1 and 3.1 of the format: encoders give all blocks of
// a stream the same, but a later block that differs is not seen. There is one
// stream: the reader takes nothing behind it. What is malformed is left to the
// library.
func checkDictionary(r *bufio.Reader) error {
	const (
		blockAt   = 12 // behind the stream's header
		maxHead   = 1024
		sizes     = 0xc0 // flags: compressed and uncompressed size are given
		lzma2     = 0x21
		maxDictAt = 40 // the largest value that stands for a size
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

// inflate returns all of data decompressed, refusing more than limit bytes.
func inflate(ctx context.Context, data []byte, limit int64) (out []byte, err error) {
	r, err := decompress(compression(data), interruptible(ctx, bytes.NewReader(data)))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return readBounded(interruptible(ctx, r), limit)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// interruptible reads r until ctx is done. It stands on both sides of a
// decompressor: much may come of little, and little of much.
func interruptible(ctx context.Context, r io.Reader) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return r.Read(p)
	})
}

// A SizeError says that something is larger than banger takes.
type SizeError struct{ Limit int64 }

func (e *SizeError) Error() string { return fmt.Sprintf("more than %d bytes", e.Limit) }

// readBounded reads all of r, at most limit bytes.
func readBounded(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, &SizeError{limit}
	}
	return data, nil
}

// copyBounded copies all of r to w, at most limit bytes.
func copyBounded(w io.Writer, r io.Reader, limit int64) error {
	n, err := io.Copy(w, io.LimitReader(r, limit+1))
	if err == nil && n > limit {
		err = &SizeError{limit}
	}
	return err
}

const (
	lz4Block = 8 << 20 // bytes that a block of a legacy frame holds at most
	lz4Magic = 0x184c2102
)

// legacyLZ4 reads legacy frames of the lz4 frame format, as kernels have
// them: a magic number, then blocks that begin with their length.
type legacyLZ4 struct {
	r       io.Reader
	begun   bool
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
		return fmt.Errorf("lz4: %w", noEOF(err))
	}
	n, err := lz4.UncompressBlock(l.in[:size], l.out)
	if err != nil {
		return fmt.Errorf("lz4: %w", err)
	}
	l.pending = l.out[:n]
	return nil
}

// noEOF keeps an end in the middle of something from looking like the end.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
