package layer

import (
	"bytes"
	"fmt"
	"io"

	"github.com/banger-vm/banger/internal/image/tree"
)

const (
	gatherSize = 1 << 20 // bytes per write
	maxRuns    = 1 << 20 // runs per file
)

var zeroBlock [tree.BlockSize]byte //nolint:gochecknoglobals // an array cannot be a constant

// bodyWriter packs the data of files into a spool. It leaves out blocks of
// zeros, pads the rest to whole blocks and writes in large pieces. Once a
// file has maxRuns runs, the last run also stores the zeros that follow it.
type bodyWriter struct {
	w       io.WriterAt
	offset  int64  // spool offset of the next block, after those in gather
	gather  []byte // blocks that are not written yet; they end at offset
	size    int64  // of the current file
	pos     int64  // in the current file
	start   int64  // spool offset of the current file
	runs    []tree.Run
	partial []byte // start of an incomplete block
}

func (b *bodyWriter) begin(size int64) {
	b.size, b.pos, b.start = size, 0, b.offset
	b.runs = b.runs[:0]
	b.partial = b.partial[:0]
}

// data appends p to the current file.
func (b *bodyWriter) data(p []byte) error {
	for len(p) > 0 {
		if len(b.partial) == 0 && len(p) >= tree.BlockSize {
			if err := b.block(p[:tree.BlockSize]); err != nil {
				return err
			}
			p = p[tree.BlockSize:]
			continue
		}
		n := min(len(p), tree.BlockSize-len(b.partial))
		b.partial = append(b.partial, p[:n]...)
		b.pos += int64(n)
		p = p[n:]
		if err := b.flushPartial(); err != nil {
			return err
		}
	}
	return nil
}

// flushPartial passes the partial block on if it is complete.
func (b *bodyWriter) flushPartial() error {
	if len(b.partial) < tree.BlockSize {
		return nil
	}
	b.pos -= tree.BlockSize // because block adds it again
	p := b.partial
	b.partial = b.partial[:0]
	return b.block(p)
}

// zeros appends a hole of n bytes to the current file, in constant time.
func (b *bodyWriter) zeros(n int64) error {
	if len(b.partial) > 0 {
		k := min(n, int64(tree.BlockSize-len(b.partial)))
		if err := b.data(zeroBlock[:k]); err != nil {
			return err
		}
		n -= k
	}
	whole := n / tree.BlockSize * tree.BlockSize
	if whole > 0 && len(b.runs) == maxRuns {
		return &tree.LimitError{What: "holes in a file", Limit: maxRuns}
	}
	b.pos += whole
	return b.data(zeroBlock[:n-whole])
}

// block appends one whole block to the current file.
func (b *bodyWriter) block(p []byte) error {
	at := b.pos
	b.pos += tree.BlockSize
	if len(b.runs) < maxRuns && bytes.Equal(p, zeroBlock[:]) {
		return nil
	}
	if last := len(b.runs) - 1; last >= 0 && b.runs[last].Offset+b.runs[last].Length == at {
		b.runs[last].Length += tree.BlockSize
	} else {
		b.runs = append(b.runs, tree.Run{Offset: at, Length: tree.BlockSize})
	}
	b.gather = append(b.gather, p...)
	b.offset += tree.BlockSize
	if len(b.gather) >= gatherSize {
		return b.flush()
	}
	return nil
}

// end finishes the current file and returns the location of its data. The
// runs are valid until the next call of begin.
func (b *bodyWriter) end() (tree.Body, error) {
	if len(b.partial) > 0 {
		fill := int64(tree.BlockSize - len(b.partial))
		if err := b.data(zeroBlock[:fill]); err != nil {
			return tree.Body{}, err
		}
	}
	body := tree.Body{Offset: b.start, Runs: b.runs}
	if body.Runs == nil {
		body.Runs = []tree.Run{}
	}
	if last := len(b.runs) - 1; last >= 0 {
		r := &b.runs[last]
		r.Length = min(r.Length, b.size-r.Offset)
	}
	whole := b.size == 0 || len(b.runs) == 1 && b.runs[0] == tree.Run{Length: b.size}
	if whole {
		body.Runs = nil
	}
	return body, nil
}

func (b *bodyWriter) flush() error {
	if len(b.gather) == 0 {
		return nil
	}
	if _, err := b.w.WriteAt(b.gather, b.offset-int64(len(b.gather))); err != nil {
		return fmt.Errorf("write file bodies: %w", err)
	}
	b.gather = b.gather[:0]
	return nil
}
