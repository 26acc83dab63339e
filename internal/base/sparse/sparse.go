// Package sparse copies and hashes files that are mostly holes, such as disks. It reads
// their data and skips their holes. It works on Linux only.
package sparse

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/base/digest"
)

const chunk = 1 << 20 // bytes between two checks of the context

// Copy makes dst, which must be empty, equal to src, with the same holes. If the file
// system can share extents (FICLONE of ioctl_ficlonerange(2)), it copies no data.
func Copy(ctx context.Context, dst, src *os.File) error {
	if err := unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())); err == nil {
		return nil
	}
	info, err := src.Stat()
	if err != nil {
		return err
	}
	if err := dst.Truncate(info.Size()); err != nil {
		return fmt.Errorf("copy %s: %w", src.Name(), err)
	}
	err = eachRun(ctx, src, info.Size(), func(off, n int64) error {
		return copyRange(dst, src, off, n)
	})
	if err != nil {
		return fmt.Errorf("copy %s: %w", src.Name(), err)
	}
	return nil
}

// copyRange copies n bytes in the kernel, or through a buffer if the kernel refuses,
// as it does between two file systems.
func copyRange(dst, src *os.File, off, n int64) error {
	from, to := off, off
	for to < off+n {
		k, err := unix.CopyFileRange(int(src.Fd()), &from, int(dst.Fd()), &to, int(off+n-to), 0)
		if err != nil || k == 0 {
			_, err := io.Copy(io.NewOffsetWriter(dst, to), io.NewSectionReader(src, from, off+n-from))
			return err
		}
	}
	return nil
}

// WriteTo writes all bytes of src to w, and zeros for its holes.
func WriteTo(ctx context.Context, w io.Writer, src *os.File) error {
	info, err := src.Stat()
	if err != nil {
		return err
	}
	zeros := make([]byte, chunk)
	buf := make([]byte, chunk)
	pos := int64(0)
	fill := func(to int64) error {
		for pos < to {
			if err := ctx.Err(); err != nil {
				return err
			}
			n, err := w.Write(zeros[:min(to-pos, chunk)])
			pos += int64(n)
			if err != nil {
				return err
			}
		}
		return nil
	}
	err = eachRun(ctx, src, info.Size(), func(off, n int64) error {
		if err := fill(off); err != nil {
			return err
		}
		pos += n
		_, err := io.CopyBuffer(struct{ io.Writer }{w}, io.NewSectionReader(src, off, n), buf)
		return err
	})
	if err == nil {
		err = fill(info.Size())
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", src.Name(), err)
	}
	return nil
}

// Digest returns the SHA-256 of all bytes of f, the same as sha256sum(1), without
// reading its holes.
func Digest(ctx context.Context, f *os.File) (digest.Digest, error) {
	h := sha256.New()
	if err := WriteTo(ctx, h, f); err != nil {
		return "", err
	}
	return digest.FromHash(h), nil
}

// eachRun calls do for the data of f in ascending order, in pieces of at most chunk
// bytes, and skips its holes.
func eachRun(ctx context.Context, f *os.File, size int64, do func(off, n int64) error) error {
	for off := int64(0); off < size; {
		start, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // the rest is a hole
		}
		end := size
		if err == nil {
			end, err = unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
		}
		if err != nil {
			start, end = off, size // the file system reports no holes
		}
		end = min(end, size)
		for off = start; off < end; off += chunk {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := do(off, min(chunk, end-off)); err != nil {
				return err
			}
		}
		off = end
	}
	return nil
}
