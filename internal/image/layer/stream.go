package layer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/banger-vm/banger/internal/base/digest"
)

const (
	chunkSize  = 1 << 20 // bytes, a multiple of the tar block
	chunkCount = 8       // in use at once; bounds the memory and the decoder's lead over the parser
)

// chunk is a piece of the plain stream that the parser and the hasher share.
// The last of them to finish puts it back into the free list.
type chunk struct {
	data  []byte
	users atomic.Int32
}

// stream reads and hashes the plain tar in the background while one consumer
// parses it. Decompression, hashing and parsing run in a goroutine each, so
// that they can use three cores.
type stream struct {
	stop   <-chan struct{} // closed when the rest of the stream is not needed
	free   chan *chunk
	parse  chan *chunk // closed at the end of the stream
	hash   chan *chunk
	done   sync.WaitGroup
	sum    digest.DiffID
	size   int64
	err    error // reason why reading stopped, nil at a clean end; valid once parse is closed
	cur    *chunk
	rest   []byte // bytes of cur that are not consumed yet
	copied [blockSize]byte
}

func startStream(ctx context.Context, r io.Reader, budget *Budget) *stream {
	s := &stream{
		stop: ctx.Done(), free: make(chan *chunk, chunkCount),
		parse: make(chan *chunk, chunkCount), hash: make(chan *chunk, chunkCount),
	}
	for range chunkCount {
		s.free <- &chunk{}
	}
	s.done.Go(func() {
		s.err = s.read(r, budget)
		close(s.hash)
		close(s.parse)
	})
	s.done.Go(s.hashChunks)
	return s
}

func (s *stream) read(r io.Reader, budget *Budget) error {
	for {
		var c *chunk
		select {
		case c = <-s.free:
		case <-s.stop:
			return context.Canceled
		}
		if c.data == nil {
			c.data = make([]byte, chunkSize)
		}
		n, err := fill(r, c.data[:chunkSize])
		if n > 0 {
			if err := budget.Take(int64(n)); err != nil {
				return err
			}
			s.size += int64(n)
			c.data = c.data[:n]
			c.users.Store(2)
			s.hash <- c // never blocks, because each channel has room for all the chunks
			s.parse <- c
		}
		if isEOF(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("decompress layer: %w", err)
		}
	}
}

// isEOF reports whether err is a clean end of a stream. That is the bare
// value io.EOF alone: a network connection that breaks returns an error that
// wraps io.EOF.
func isEOF(err error) bool { return err == io.EOF } //nolint:errorlint // errors.Is would accept a broken connection

// fill reads until p is full or r ends. Unlike io.ReadFull it distinguishes
// between a clean end and the io.ErrUnexpectedEOF of a decoder.
func fill(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		k, err = r.Read(p[n:])
		n += k
	}
	return n, err
}

func (s *stream) hashChunks() {
	h := sha256.New()
	for c := range s.hash {
		h.Write(c.data)
		s.release(c)
	}
	s.sum = digest.DiffID(fmt.Sprintf("sha256:%x", h.Sum(nil)))
}

func (s *stream) release(c *chunk) {
	if c.users.Add(-1) == 0 {
		s.free <- c
	}
}

// wait waits for the background work to end. It returns the hash and the size
// of the plain stream, and the reason why reading stopped.
func (s *stream) wait() (digest.DiffID, int64, error) {
	for c := range s.parse { // chunks that the parser left because of an error
		s.release(c)
	}
	s.done.Wait()
	return s.sum, s.size, s.err
}

// refill takes the next chunk if rest is empty. It returns io.EOF at the end
// of the stream.
func (s *stream) refill() error {
	if len(s.rest) > 0 {
		return nil
	}
	if s.cur != nil {
		s.release(s.cur)
		s.cur = nil
	}
	select {
	case c, ok := <-s.parse:
		if !ok {
			if s.err != nil {
				return s.err
			}
			return io.EOF
		}
		s.cur, s.rest = c, c.data
		return nil
	case <-s.stop:
		return context.Canceled
	}
}

// block returns the next 512 bytes, which are valid until the next call. It
// returns io.EOF if the stream ends before the first of them.
func (s *stream) block() ([]byte, error) {
	if err := s.refill(); err != nil {
		return nil, err
	}
	if len(s.rest) >= blockSize {
		b := s.rest[:blockSize]
		s.rest = s.rest[blockSize:]
		return b, nil
	}
	n := 0
	err := s.each(blockSize, func(p []byte) error {
		n += copy(s.copied[n:], p)
		return nil
	})
	return s.copied[:], err
}

// innerBlock returns the next 512 bytes within an entry, where the end of the
// stream is an error.
func (s *stream) innerBlock() ([]byte, error) {
	b, err := s.block()
	if isEOF(err) {
		err = errTruncated
	}
	return b, err
}

var errTruncated = fmt.Errorf("tar ends within an entry: %w", io.ErrUnexpectedEOF)

// each calls do with the next n bytes, piece by piece.
func (s *stream) each(n int64, do func([]byte) error) error {
	for n > 0 {
		if err := s.refill(); err != nil {
			if isEOF(err) {
				return errTruncated
			}
			return err
		}
		p := s.rest[:min(n, int64(len(s.rest)))]
		s.rest = s.rest[len(p):]
		n -= int64(len(p))
		if err := do(p); err != nil {
			return err
		}
	}
	return nil
}

// discard skips n bytes.
func (s *stream) discard(n int64) error {
	return s.each(n, func([]byte) error { return nil })
}

// padding skips the n bytes that fill up the last block of an entry. They may
// be missing at the end of the stream, because some writers do not close
// their archives.
func (s *stream) padding(n int64) error {
	if err := s.discard(n); !errors.Is(err, errTruncated) {
		return err
	}
	return nil
}

// skipRest reads to the end of the stream. It returns the number of bytes, or 0
// if all of them are zeros, which archivers write to fill up a record.
func (s *stream) skipRest() (n int64, err error) {
	zeros := true
	for {
		err := s.refill()
		if isEOF(err) && zeros {
			return 0, nil
		}
		if isEOF(err) {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
		zeros = zeros && isZero(s.rest)
		n += int64(len(s.rest))
		s.rest = nil
	}
}

func isZero(p []byte) bool {
	for len(p) > len(zeroBlock) {
		if !bytes.Equal(p[:len(zeroBlock)], zeroBlock[:]) {
			return false
		}
		p = p[len(zeroBlock):]
	}
	return bytes.Equal(p, zeroBlock[:len(p)])
}
