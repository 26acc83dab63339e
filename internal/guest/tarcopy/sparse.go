package tarcopy

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// typeSparse is the type of an entry for a file with holes. POSIX reserves upper
// case letters for such types. The body is a sparseMap, followed by the data of
// its extents. Package archive/tar has the sparse files of GNU tar as files
// whose holes are zeros, so that reading them takes the time of their length.
const typeSparse = 'H'

// maxExtents is the largest number of extents of an entry. In a file with more
// of them, the last extent extends to the file's end.
const maxExtents = 64 << 10

// wordSize is the size of a number in a sparseMap in bytes.
const wordSize = 8

// An extent is a part of a file that has data.
type extent struct{ Offset, Length int64 }

// A sparseMap has the size of a file and its extents, in ascending order. Its
// encoding is the size, the number of extents, and for each its offset and its
// length, as big-endian numbers of 8 bytes.
type sparseMap struct {
	size    int64
	extents []extent
}

// length returns the number of bytes of the body.
func (m *sparseMap) length() int64 {
	n := int64(2+2*len(m.extents)) * wordSize
	for _, e := range m.extents {
		n += e.Length
	}
	return n
}

func (m *sparseMap) encode() []byte {
	var b bytes.Buffer
	for _, part := range []any{m.size, int64(len(m.extents)), m.extents} {
		_ = binary.Write(&b, binary.BigEndian, part) // a Buffer has no errors
	}
	return b.Bytes()
}

// decodeMap reads and checks the sparseMap at the start of a body of length
// bytes.
func decodeMap(body io.Reader, length int64) (*sparseMap, error) {
	var head [2]int64
	if err := binary.Read(body, binary.BigEndian, &head); err != nil {
		return nil, fmt.Errorf("read map of a sparse file: %w", err)
	}
	m := &sparseMap{size: head[0]}
	if m.size < 0 || head[1] < 0 || head[1] > maxExtents {
		return nil, fmt.Errorf("sparse file of %d bytes in %d extents", head[0], head[1])
	}
	m.extents = make([]extent, head[1])
	if err := binary.Read(body, binary.BigEndian, m.extents); err != nil {
		return nil, fmt.Errorf("read map of a sparse file: %w", err)
	}
	end := int64(0)
	for _, e := range m.extents {
		if e.Offset < end || e.Length <= 0 || e.Length > m.size-e.Offset {
			return nil, fmt.Errorf("sparse file of %d bytes: extent of %d bytes at %d after one that ends at %d", m.size, e.Length, e.Offset, end)
		}
		end = e.Offset + e.Length
	}
	if m.length() != length {
		return nil, fmt.Errorf("sparse file: entry of %d bytes, its map has %d", length, m.length())
	}
	return m, nil
}

// mapFile returns the map of a file, or nil if it has no holes that are worth a
// map.
func mapFile(f *os.File, size int64) *sparseMap {
	m := &sparseMap{size: size}
	for at := int64(0); at < size; {
		start, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) || err == nil && start >= size {
			break // the rest is a hole
		}
		end := size
		if err == nil && len(m.extents) < maxExtents-1 {
			end, err = unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
		}
		if err != nil {
			return nil // the file system reports no holes
		}
		at = min(end, size)
		m.extents = append(m.extents, extent{start, at - start})
	}
	if m.length() >= size {
		return nil
	}
	return m
}

// sparse writes the file f, which has holes, as an entry of typeSparse.
func (p *packer) sparse(ctx context.Context, f *os.File, h *tar.Header, m *sparseMap) error {
	h.Typeflag, h.Size = typeSparse, m.length()
	if err := p.writeHeader(f.Name(), h); err != nil {
		return err
	}
	if _, err := p.tar.Write(m.encode()); err != nil {
		return err
	}
	for _, e := range m.extents {
		if err := p.body(ctx, h.Name, io.NewSectionReader(f, e.Offset, e.Length), e.Length); err != nil {
			return err
		}
	}
	return nil
}

// sparse creates a file from an entry of typeSparse. Its holes take no space, so
// an untrusted stream cannot fill the disk with a small entry.
func (x *extractor) sparse(ctx context.Context, dst destination, h *tar.Header, m *meta, body io.Reader) error {
	layout, err := decodeMap(body, h.Size)
	if err != nil {
		return err
	}
	return x.create(dst, h, m, func(f *os.File) error {
		if err := f.Truncate(layout.size); err != nil {
			return err
		}
		for _, e := range layout.extents {
			to := io.NewOffsetWriter(f, e.Offset)
			if err := copyAll(writeFunc(to.Write), reader(ctx, body), e.Length, x.buffer); err != nil {
				return err
			}
		}
		return nil
	})
}

// copyAll copies n bytes. It returns an error if there are fewer.
func copyAll(w io.Writer, r io.Reader, n int64, buffer []byte) error {
	copied, err := io.CopyBuffer(w, io.LimitReader(r, n), buffer)
	if err == nil && copied < n {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// Expand copies a stream of Pack with the option Sparse to w, and writes files
// with holes as ordinary ones, for programs that do not know typeSparse.
func Expand(ctx context.Context, w io.Writer, r io.Reader) error {
	buffered := bufio.NewWriterSize(w, copyBuffer)
	in, out, buffer := tar.NewReader(reader(ctx, r)), tar.NewWriter(buffered), make([]byte, copyBuffer)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read tar stream: %w", err)
		}
		if err := expand(ctx, out, h, in, buffer); err != nil {
			return fmt.Errorf("copy %s: %w", quote(h.Name), err)
		}
	}
	if err := errors.Join(out.Close(), buffered.Flush()); err != nil {
		return fmt.Errorf("write tar stream: %w", err)
	}
	return readPadding(r)
}

// expand copies one entry.
func expand(ctx context.Context, out *tar.Writer, h *tar.Header, body io.Reader, buffer []byte) error {
	h.Format = tar.FormatPAX
	if h.Typeflag != typeSparse {
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		_, err := io.CopyBuffer(writeFunc(out.Write), body, buffer)
		return err
	}
	m, err := decodeMap(body, h.Size)
	if err != nil {
		return err
	}
	h.Typeflag, h.Size = tar.TypeReg, m.size
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	at := int64(0)
	for _, e := range append(m.extents, extent{Offset: m.size}) {
		if err := copyAll(writeFunc(out.Write), reader(ctx, readFunc(zeros)), e.Offset-at, buffer); err != nil {
			return err
		}
		if err := copyAll(writeFunc(out.Write), body, e.Length, buffer); err != nil {
			return err
		}
		at = e.Offset + e.Length
	}
	return nil
}

// zeros reads zeros, without an end.
func zeros(b []byte) (int, error) { clear(b); return len(b), nil }

// holeSize is the unit in bytes in which a holeWriter looks for zeros: the block
// of most file systems.
const holeSize = 4096

// A holeWriter writes to a new file, and leaves holes in the place of zeros.
type holeWriter struct {
	file *os.File
	at   int64
}

func (w *holeWriter) Write(p []byte) (int, error) {
	empty := make([]byte, holeSize)
	for rest := p; len(rest) > 0; {
		// Blocks of the file, not of p.
		n := min(len(rest), int(holeSize-w.at%holeSize))
		if !bytes.Equal(rest[:n], empty[:n]) {
			if _, err := w.file.WriteAt(rest[:n], w.at); err != nil {
				return len(p) - len(rest), err
			}
		}
		w.at, rest = w.at+int64(n), rest[n:]
	}
	return len(p), nil
}

// close sets the size of the file, which may end in a hole.
func (w *holeWriter) close() error { return w.file.Truncate(w.at) }
