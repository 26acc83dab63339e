package write

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const copyChunk = 1 << 20 // size in bytes of the buffer of a copy, if the kernel does not copy

// copyBodies writes the data of all files to its place and makes the rest of the
// disk zero.
func (w *writer) copyBodies(ctx context.Context, spools []io.ReaderAt) error {
	direct := w.o.Direct >= 0 && w.o.Direct < len(spools) && spools[w.o.Direct] == nil
	if !direct {
		if err := w.disk.Truncate(0); err != nil {
			return err
		}
		if err := w.disk.Truncate(w.size); err != nil {
			return err
		}
	}
	split := 0
	for split < len(w.bodies) && w.bodies[split].rank() == 0 {
		split++
	}
	if direct {
		if err := w.finishDirect(ctx, w.bodies[:split]); err != nil {
			return err
		}
	} else {
		split = 0
	}
	return w.eachCopy(w.bodies[split:], func(layer int, from, to, n int64) error {
		if layer >= len(spools) || spools[layer] == nil {
			return fmt.Errorf("layer %d has no spool", layer)
		}
		return w.copyToSpace(ctx, spools[layer], from, to, n)
	})
}

// finishDirect completes the data that a DataFile has written to the disk. Blocks
// that no body has, for example those of replaced files, become holes. If the
// layout is compact, the bodies move to their new places first, in ascending order.
// They never overwrite a body that is still to move. The data space of a compact
// disk has every block that a DataFile can use, and more, so the same position in
// it is the same block or a lower one.
func (w *writer) finishDirect(ctx context.Context, bodies []body) error {
	if w.compact {
		from := NewDataFile(w.disk)
		err := w.eachCopy(bodies, func(_ int, src, dst, n int64) error { return w.copyToSpace(ctx, from, src, dst, n) })
		if err != nil {
			return err
		}
	}
	info, err := w.disk.Stat()
	if err != nil {
		return err
	}
	var live []span
	for i := range bodies {
		b := &bodies[i]
		w.data.each(int64(w.starts[b.inode]), int64(b.blocks), func(block, count int64) {
			if n := len(live); n > 0 && live[n-1].end == block {
				live[n-1].end += count
			} else {
				live = append(live, span{block, block + count})
			}
		})
		if !w.compact {
			w.report(int64(b.blocks) * blockSize)
		}
	}
	for _, gap := range subtract([]span{{0, blocksOf(info.Size())}}, live) {
		if err := w.wipe(gap); err != nil {
			return err
		}
	}
	return w.disk.Truncate(w.size)
}

// wipe makes blocks of the disk zero. It punches a hole if the host's file system
// can.
func (w *writer) wipe(s span) error {
	at, n := s.start*blockSize, (s.end-s.start)*blockSize
	err := retry(func() error {
		return unix.Fallocate(int(w.disk.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, n)
	})
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	zeros := make([]byte, min(n, copyChunk))
	for n > 0 {
		k, err := w.disk.WriteAt(zeros[:min(n, copyChunk)], at)
		if err != nil {
			return err
		}
		at, n = at+int64(k), n-int64(k)
	}
	return nil
}

// retry calls do until it returns an error other than EINTR, or none.
func retry(do func() error) error {
	for {
		if err := do(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// eachCopy calls do for ranges of bodies that follow each other both in the spool
// and in the data space. The ranges are as long as possible: n blocks from block
// from of the layer's spool to position to of the data space.
func (w *writer) eachCopy(bodies []body, do func(layer int, from, to, n int64) error) error {
	for i := 0; i < len(bodies); {
		first := &bodies[i]
		from, to, n := first.spoolBlock(), int64(w.starts[first.inode]), int64(0)
		for ; i < len(bodies); i++ {
			b := &bodies[i]
			if b.rank() != first.rank() || b.spoolBlock() != from+n || int64(w.starts[b.inode]) != to+n {
				break
			}
			n += int64(b.blocks)
		}
		if err := do(w.layerOf(first.rank()), from, to, n); err != nil {
			return err
		}
	}
	return nil
}

// copyToSpace copies n blocks from block from of a spool to position to of the data
// space.
func (w *writer) copyToSpace(ctx context.Context, spool io.ReaderAt, from, to, n int64) (err error) {
	w.data.each(to, n, func(block, count int64) {
		if err == nil {
			err = w.copyBlocks(ctx, spool, from, block, count)
		}
		from += count
	})
	return err
}

// copyBlocks copies blocks from block from of a spool to block to of the disk. It
// copies in pieces and checks ctx before each.
func (w *writer) copyBlocks(ctx context.Context, spool io.ReaderAt, from, to, count int64) error {
	const piece = 64 << 20
	src, dst, left := from*blockSize, to*blockSize, count*blockSize
	for left > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(left, piece)
		if err := copyRange(w.disk, dst, spool, src, n); err != nil {
			return err
		}
		w.report(n)
		src, dst, left = src+n, dst+n, left-n
	}
	return nil
}

// copyRange copies n bytes. If the spool is a file, the kernel copies them, or
// shares the extents of the two files, by copy_file_range(2). The rest goes through
// a buffer.
func copyRange(disk *os.File, dst int64, spool io.ReaderAt, src, n int64) error {
	if f, ok := spool.(*os.File); ok {
		for n > 0 {
			k, err := unix.CopyFileRange(int(f.Fd()), &src, int(disk.Fd()), &dst, int(n), 0)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil || k == 0 {
				break // if the error persists, the copy through the buffer returns it
			}
			n -= int64(k)
		}
	}
	if n == 0 {
		return nil
	}
	buf := make([]byte, min(n, copyChunk))
	for n > 0 {
		part := buf[:min(n, copyChunk)]
		if k, err := spool.ReadAt(part, src); k < len(part) {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("read spool at %d: %w", src, err)
		}
		if _, err := disk.WriteAt(part, dst); err != nil {
			return err
		}
		src, dst, n = src+int64(len(part)), dst+int64(len(part)), n-int64(len(part))
	}
	return nil
}
