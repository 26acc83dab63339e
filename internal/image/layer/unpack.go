package layer

import (
	"context"
	"fmt"
	"io"

	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/image/tree"
)

// Default limits.
const (
	DefaultBytes   = 64 << 30  // of all layers of an image, uncompressed
	DefaultEntries = 5_000_000 // of one layer
	DefaultXattr   = 64 << 10  // XATTR_SIZE_MAX of linux/limits.h
)

// Limits bound the size of a layer. A zero field stands for its default.
type Limits struct {
	Bytes      *Budget  // shared by the layers of an image; nil is a budget of DefaultBytes for this layer
	Windows    *Windows // shared by the layers of an image; nil is a limit of DefaultWindow for this layer
	Entries    int64
	XattrBytes int // of one value; at most DefaultXattr
}

// Options control how Unpack reads a layer.
type Options struct {
	// DiffID is the expected hash of the uncompressed stream. If it is empty,
	// Unpack accepts any stream that has an end-of-archive marker: without a
	// hash, only the marker shows that the stream is complete.
	DiffID digest.DiffID
	Limits Limits
}

// Info describes a layer that has been read completely.
type Info struct {
	DiffID      digest.DiffID
	Entries     int64
	StreamBytes int64    // of the tar, uncompressed
	SpoolBytes  int64    // of the bodies, a multiple of tree.BlockSize
	Compression string   // gzip, zstd or none
	Warnings    []string // parts of the layer that Unpack left out
}

// Unpack reads a stored layer from r: gzip, zstd or plain tar, recognised by
// content. It writes the bodies of files to bodies in the layout that
// tree.Body describes, in large pieces and in ascending order. It writes the
// table of contents to table.
//
// If Unpack returns no error, then r has been read to its end, the diffID
// matches. Bytes after the end of the archive, and zeros after the compressed
// stream, are covered by the digests but are no content: a warning counts them. No
// reader of layers takes a second archive there. If Unpack returns an error, the
// written data must not be used. An error in an entry is a *tree.EntryError.
// A limit that the layer exceeds is a *tree.LimitError. Unpack returns an
// error of r unchanged.
//
// Unpack uses about 16 MiB of memory, and 32 MiB more while it reads a file
// of a million holes. A zstd layer needs its window in addition.
func Unpack(ctx context.Context, r io.Reader, bodies io.WriterAt, table io.Writer, o Options) (_ Info, err error) {
	source := newSource(r)
	plain, compression, err := decompress(ctx, source, o.Limits.windows())
	if err != nil {
		return Info{}, source.cause(err)
	}
	defer plain.Close()
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	budget := o.Limits.budget()
	s := startStream(inner, plain, budget)
	defer func() {
		if err != nil {
			budget.giveBack(s.size)
		}
	}()
	u := unpacker{
		tar:    tarReader{s: s, maxXattr: o.Limits.xattrBytes()},
		bodies: bodyWriter{w: bodies},
		table:  newTableWriter(table),
		o:      o,
		info:   Info{Compression: compression},
	}
	err = u.run()
	if err != nil {
		cancel() // the rest of the stream is not needed
	}
	sum, size, streamErr := s.wait()
	if err == nil {
		err = streamErr
	}
	if err != nil && ctx.Err() != nil {
		return Info{}, ctx.Err()
	}
	if err != nil {
		return Info{}, source.cause(err)
	}
	if err := source.atEnd(); err != nil {
		return Info{}, err
	}
	u.info.DiffID, u.info.StreamBytes = sum, size
	if z, ok := plain.(*gzipStream); ok && z.Zeros() > 0 {
		u.info.Warnings = append(u.info.Warnings, fmt.Sprintf("%d zeros after the compressed layer left out", z.Zeros()))
	}
	if o.DiffID != "" && sum != o.DiffID {
		return Info{}, fmt.Errorf("diffID is %s, want %s", sum, o.DiffID)
	}
	if err := u.table.finish(u.info); err != nil {
		return Info{}, err
	}
	return u.info, nil
}

func (l Limits) budget() *Budget {
	if l.Bytes == nil {
		return NewBudget(0)
	}
	return l.Bytes
}

func (l Limits) windows() *Windows {
	if l.Windows == nil {
		return NewWindows(0)
	}
	return l.Windows
}

func (l Limits) xattrBytes() int {
	if l.XattrBytes <= 0 || l.XattrBytes > DefaultXattr {
		return DefaultXattr
	}
	return l.XattrBytes
}

func (l Limits) entries() int64 {
	if l.Entries <= 0 {
		return DefaultEntries
	}
	return l.Entries
}

// unpacker reads entries from the tar, writes their bodies to the spool and
// records both in the table.
type unpacker struct {
	tar    tarReader
	bodies bodyWriter
	table  *tableWriter
	o      Options
	info   Info
}

func (u *unpacker) run() error {
	for {
		it, err := u.tar.next()
		if isEOF(err) {
			break
		}
		if err != nil {
			return err
		}
		if u.info.Entries++; u.info.Entries > u.o.Limits.entries() {
			return &tree.LimitError{What: "entries in a layer", Limit: u.o.Limits.entries(), Option: "limits.inodes"}
		}
		if err := u.entry(it); err != nil {
			return &tree.EntryError{Name: it.entry.Name, Err: err}
		}
	}
	if !u.tar.ended && u.o.DiffID == "" {
		return fmt.Errorf("tar has no end-of-archive marker: %w", io.ErrUnexpectedEOF)
	}
	trailing, err := u.tar.s.skipRest()
	if err != nil {
		return err
	}
	if err := u.bodies.flush(); err != nil {
		return err
	}
	u.info.SpoolBytes = u.bodies.offset
	u.info.Warnings = u.tar.warnings()
	if trailing > 0 {
		u.info.Warnings = append(u.info.Warnings, fmt.Sprintf("%d bytes after the end of the tar left out", trailing))
	}
	return nil
}

func (u *unpacker) entry(it *item) error {
	if it.entry.Type == tree.Regular {
		if err := u.body(it); err != nil {
			return err
		}
	}
	if err := u.tar.s.discard(it.left); err != nil {
		return err
	}
	if err := u.tar.s.padding(it.padding); err != nil {
		return err
	}
	return u.table.add(&it.entry)
}

// body copies the data of a file to the spool and sets its location in the
// entry.
func (u *unpacker) body(it *item) error {
	e := &it.entry
	u.bodies.begin(e.Size)
	for _, part := range it.parts() {
		if err := u.bodies.zeros(part.Offset - u.bodies.pos); err != nil {
			return err
		}
		if err := u.tar.s.each(part.Length, u.bodies.data); err != nil {
			return err
		}
		it.left -= part.Length
	}
	if err := u.bodies.zeros(e.Size - u.bodies.pos); err != nil {
		return err
	}
	var err error
	e.Body, err = u.bodies.end()
	return err
}
