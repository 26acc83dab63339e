package layer

import (
	"bytes"
	"fmt"
	"io"

	"github.com/banger-vm/banger/internal/image/tree"
)

const (
	gatherSize = 1 << 20 // bytes that are written at a time
	maxRuns    = 1 << 20 // pieces of one file
)

var zeroBlock [tree.BlockSize]byte //nolint:gochecknoglobals // a constant, which Go has no form for

// bodyWriter packs the data of files into a spool: blocks of zeros are left
// out, the rest is padded to whole blocks and written in large pieces. Once a
// file has maxRuns pieces, its last one takes in the zeros that follow.
type bodyWriter struct {
	w       io.WriterAt
	offset  int64  // in the spool, of the next block, those in gather included
	gather  []byte // blocks not written yet; they end at offset
	size    int64  // of the current file
	pos     int64  // in the current file
	start   int64  // spool offset of the current file
	runs    []tree.Run
	partial []byte // begin of a block that is not complete
}

func (b *bodyWriter) begin(size int64) {
	b.size, b.pos, b.start = size, 0, b.offset
	b.runs = b.runs[:0]
	b.partial = b.partial[:0]
}

// data takes the next bytes of the file.
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
		if err := b.completed(); err != nil {
			return err
		}
	}
	return nil
}

// completed passes the partial block on once it is whole.
func (b *bodyWriter) completed() error {
	if len(b.partial) < tree.BlockSize {
		return nil
	}
	b.pos -= tree.BlockSize // block counts it again
	p := b.partial
	b.partial = b.partial[:0]
	return b.block(p)
}

// zeros takes the next n bytes of the file, which are a hole in the archive,
// in constant time.
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

// block takes one whole block.
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

// end closes the current file and says where its data lies. The runs are
// valid until the next begin.
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
