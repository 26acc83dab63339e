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
	chunkCount = 8       // in flight: bounds memory and how far the decoder runs ahead
)

// chunk is a piece of the plain stream that the parser and the hasher share.
type chunk struct {
	data  []byte
	users atomic.Int32
}

// stream reads the plain tar in the background and hashes it, while one
// consumer parses it: decompression, hashing and parsing each have a core to
// themselves where there is one.
type stream struct {
	stop   <-chan struct{} // closed when nobody wants the rest
	free   chan *chunk
	parse  chan *chunk // closed at the end of the stream
	hash   chan *chunk
	done   sync.WaitGroup
	sum    digest.DiffID
	size   int64
	err    error // why reading ended, nil at a clean end; valid once parse is closed
	cur    *chunk
	rest   []byte // of cur, not yet consumed
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
	s.done.Go(s.sumUp)
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
			s.hash <- c // never blocks: a channel holds all the chunks there are
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

// isEOF tells a clean end. It takes only the bare value that io.Reader
// speaks of: an error that wraps io.EOF is one of a network.
func isEOF(err error) bool { return err == io.EOF } //nolint:errorlint // see above

// fill reads until p is full or r ends. Unlike io.ReadFull it keeps a clean
// end apart from the io.ErrUnexpectedEOF of a decoder.
func fill(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		k, err = r.Read(p[n:])
		n += k
	}
	return n, err
}

func (s *stream) sumUp() {
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

// wait returns when the background work has ended, with the hash and size of
// what was read.
func (s *stream) wait() (digest.DiffID, int64, error) {
	for c := range s.parse { // what the parser left, after an error
		s.release(c)
	}
	s.done.Wait()
	return s.sum, s.size, s.err
}

// more makes rest not empty, or returns why it can't.
func (s *stream) more() error {
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

// block returns the next 512 bytes, valid until the next call. io.EOF means
// that the stream ended before the first of them.
func (s *stream) block() ([]byte, error) {
	if err := s.more(); err != nil {
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

// innerBlock returns the next 512 bytes where the archive cannot end.
func (s *stream) innerBlock() ([]byte, error) {
	b, err := s.block()
	if isEOF(err) {
		err = errTruncated
	}
	return b, err
}

// errTruncated says that the stream ends where an entry does not.
var errTruncated = fmt.Errorf("tar ends within an entry: %w", io.ErrUnexpectedEOF)

// each hands the next n bytes to do, piece by piece.
func (s *stream) each(n int64, do func([]byte) error) error {
	for n > 0 {
		if err := s.more(); err != nil {
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

// padding skips the n bytes that fill up the last block of an entry. Writers
// that do not close their archive leave them out at the very end.
func (s *stream) padding(n int64) error {
	if err := s.discard(n); !errors.Is(err, errTruncated) {
		return err
	}
	return nil
}

// onlyZeros reads to the end and refuses anything but zeros, which archivers
// write to fill up a record.
func (s *stream) onlyZeros() error {
	for {
		err := s.more()
		if isEOF(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if !isZero(s.rest) {
			return errors.New("trailing data after the end of the tar")
		}
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
