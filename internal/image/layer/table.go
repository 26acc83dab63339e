package layer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"

	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/image/tree"
)

// TableVersion is the version of the format of tables of contents. It must
// change if the format changes, or if the table of an unchanged layer does.
//
// A table is a magic number and a sequence of frames. A frame is the length
// of its payload and the payload's CRC-32C, four little-endian bytes each,
// then the payload. A payload holds whole entries, with numbers as varints of
// encoding/binary. The last frame is a trailer: type 0, then the fields of
// Info.
const TableVersion = 1

const (
	tableMagic = "bngrtoc\x01"
	frameSize  = 64 << 10  // bytes of payload after which the writer closes a frame
	maxFrame   = 128 << 20 // bytes of payload that the reader accepts
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// tableWriter encodes entries.
type tableWriter struct {
	w     io.Writer
	frame []byte
	begun bool
}

func newTableWriter(w io.Writer) *tableWriter { return &tableWriter{w: w} }

func (t *tableWriter) add(e *tree.Entry) error {
	b := append(t.frame, byte(e.Type))
	b = appendString(b, e.Name)
	b = binary.AppendUvarint(b, uint64(e.Mode))
	b = binary.AppendUvarint(b, uint64(e.UID))
	b = binary.AppendUvarint(b, uint64(e.GID))
	b = binary.AppendVarint(b, e.Mtime.Sec)
	b = binary.AppendUvarint(b, uint64(e.Mtime.Nsec))
	b = binary.AppendUvarint(b, uint64(len(e.Xattrs)))
	for _, x := range e.Xattrs {
		b = appendString(b, x.Name)
		b = appendString(b, x.Value)
	}
	switch e.Type {
	case tree.Regular:
		b = appendBody(b, e)
	case tree.Symlink, tree.HardLink:
		b = appendString(b, e.Linkname)
	case tree.CharDevice, tree.BlockDevice:
		b = binary.AppendUvarint(b, uint64(e.Major))
		b = binary.AppendUvarint(b, uint64(e.Minor))
	case tree.Directory, tree.Fifo:
	}
	t.frame = b
	if len(b) < frameSize {
		return nil
	}
	return t.flush()
}

// appendBody appends the body with the count of its runs plus one, because a
// count of 0 means that the file has no holes.
func appendBody(b []byte, e *tree.Entry) []byte {
	b = binary.AppendUvarint(b, uint64(e.Size))
	b = binary.AppendUvarint(b, uint64(e.Body.Offset))
	if e.Body.Runs == nil {
		return append(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(len(e.Body.Runs))+1)
	for _, r := range e.Body.Runs {
		b = binary.AppendUvarint(b, uint64(r.Offset))
		b = binary.AppendUvarint(b, uint64(r.Length))
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func (t *tableWriter) flush() error {
	var head []byte
	if !t.begun {
		t.begun = true
		head = append(head, tableMagic...)
	}
	head = binary.LittleEndian.AppendUint32(head, uint32(len(t.frame)))
	head = binary.LittleEndian.AppendUint32(head, crc32.Checksum(t.frame, castagnoli))
	for _, p := range [][]byte{head, t.frame} {
		if _, err := t.w.Write(p); err != nil {
			return fmt.Errorf("write table of contents: %w", err)
		}
	}
	t.frame = t.frame[:0]
	return nil
}

// finish writes the trailer. A reader refuses a table without one.
func (t *tableWriter) finish(info Info) error {
	if len(t.frame) > 0 {
		if err := t.flush(); err != nil {
			return err
		}
	}
	b := append(t.frame, 0)
	b = appendString(b, string(info.DiffID))
	b = appendString(b, info.Compression)
	b = binary.AppendUvarint(b, uint64(info.Entries))
	b = binary.AppendUvarint(b, uint64(info.StreamBytes))
	b = binary.AppendUvarint(b, uint64(info.SpoolBytes))
	b = binary.AppendUvarint(b, uint64(len(info.Warnings)))
	for _, w := range info.Warnings {
		b = appendString(b, w)
	}
	t.frame = b
	return t.flush()
}

var errTable = errors.New("table of contents is damaged")

// A Table reads a table of contents. It checks every value that it reads.
type Table struct {
	r       io.Reader
	buf     []byte
	d       decoder
	entries int64
	spool   int64 // required spool offset of the next body
	info    Info
	done    bool
}

// OpenTable checks the magic number of the table in r and returns a reader of
// its entries. It reads in large pieces, so r need not be buffered.
func OpenTable(r io.Reader) (*Table, error) {
	magic := make([]byte, len(tableMagic))
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != tableMagic {
		return nil, errTable
	}
	return &Table{r: r}, nil
}

// Info returns the description of the layer from the trailer. It is valid
// once Next has returned io.EOF.
func (t *Table) Info() Info { return t.info }

// Next sets e to the next entry. It returns io.EOF after the last one. The
// caller must read up to io.EOF before it relies on the entries, because only
// the trailer shows that the table is complete.
func (t *Table) Next(e *tree.Entry) error {
	if t.done {
		return io.EOF
	}
	if len(t.d.b) == 0 {
		if err := t.nextFrame(); err != nil {
			return err
		}
	}
	kind := tree.Type(t.d.byte())
	if kind == 0 {
		return t.trailer()
	}
	*e = tree.Entry{Type: kind}
	t.d.entry(e)
	if t.d.bad || !t.packed(e) {
		return errTable
	}
	t.entries++
	return nil
}

// packed reports whether e's body directly follows the previous one in the
// spool.
func (t *Table) packed(e *tree.Entry) bool {
	if e.Type != tree.Regular {
		return true
	}
	if e.Body.Offset != t.spool {
		return false
	}
	length := blocks(e.Size)
	if e.Body.Runs != nil {
		length = 0
		for _, r := range e.Body.Runs {
			length += blocks(r.Length)
		}
	}
	t.spool += length
	return true
}

// blocks returns n rounded up to whole blocks of a spool, in bytes.
func blocks(n int64) int64 { return (n + tree.BlockSize - 1) &^ (tree.BlockSize - 1) }

func (t *Table) nextFrame() error {
	var head [8]byte
	if _, err := io.ReadFull(t.r, head[:]); err != nil {
		return errTable
	}
	n := binary.LittleEndian.Uint32(head[:4])
	if n == 0 || n > maxFrame {
		return errTable
	}
	if err := t.readFrame(int(n)); err != nil {
		return errTable
	}
	if crc32.Checksum(t.buf, castagnoli) != binary.LittleEndian.Uint32(head[4:]) {
		return errTable
	}
	t.d.b = t.buf
	return nil
}

// readFrame reads a payload of n bytes. It grows the buffer as data arrives,
// so that a damaged length does not allocate memory.
func (t *Table) readFrame(n int) error {
	t.buf = t.buf[:0]
	for len(t.buf) < n {
		from := len(t.buf)
		k := min(n-from, 1<<20)
		if cap(t.buf) < from+k {
			grown := make([]byte, from, max(from+k, min(n, 2*from)))
			copy(grown, t.buf)
			t.buf = grown
		}
		t.buf = t.buf[:from+k]
		if _, err := io.ReadFull(t.r, t.buf[from:]); err != nil {
			return err
		}
	}
	return nil
}

func (t *Table) trailer() error {
	id, err := digest.ParseDiffID(t.d.string())
	t.info = Info{DiffID: id, Compression: t.d.string(), Entries: t.d.int64(), StreamBytes: t.d.int64(), SpoolBytes: t.d.int64()}
	for n := t.d.count(); n > 0; n-- {
		t.info.Warnings = append(t.info.Warnings, t.d.string())
	}
	if err != nil || t.d.bad || len(t.d.b) != 0 || t.info.Entries != t.entries || t.info.SpoolBytes != t.spool {
		return errTable
	}
	if _, err := io.ReadFull(t.r, make([]byte, 1)); !isEOF(err) {
		return errTable
	}
	t.done = true
	return io.EOF
}

// decoder reads values from the front of b. After the first invalid value it
// sets bad and returns zero values.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) fail() {
	d.b, d.bad = nil, true
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) uint(limit uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > limit {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) int64() int64 { return int64(d.uint(math.MaxInt64)) }

func (d *decoder) uint32() uint32 { return uint32(d.uint(math.MaxUint32)) }

// count reads the number of elements that follow. An element takes at least
// one byte.
func (d *decoder) count() int { return int(d.uint(uint64(len(d.b)))) }

func (d *decoder) string() string {
	n := d.count()
	if n > len(d.b) {
		d.fail()
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) entry(e *tree.Entry) {
	e.Name = d.string()
	e.Mode = uint16(d.uint(0o7777))
	e.UID, e.GID = d.uint32(), d.uint32()
	e.Mtime.Sec = d.varint()
	e.Mtime.Nsec = uint32(d.uint(999_999_999))
	for n := d.count(); n > 0 && !d.bad; n-- {
		e.Xattrs = append(e.Xattrs, tree.Xattr{Name: d.string(), Value: d.string()})
	}
	switch e.Type {
	case tree.Regular:
		d.body(e)
	case tree.Symlink, tree.HardLink:
		e.Linkname = d.string()
	case tree.CharDevice, tree.BlockDevice:
		e.Major, e.Minor = d.uint32(), d.uint32()
	case tree.Directory, tree.Fifo:
	default:
		d.fail()
	}
}

func (d *decoder) body(e *tree.Entry) {
	e.Size, e.Body.Offset = int64(d.uint(maxFileSize)), d.int64()
	n := d.count()
	if n == 0 {
		return
	}
	if n > len(d.b)/2+1 || n > maxRuns+1 { // a run takes at least two bytes
		d.fail()
		return
	}
	e.Body.Runs = make([]tree.Run, 0, n-1)
	end := int64(0)
	for range n - 1 {
		r := tree.Run{Offset: d.int64(), Length: d.int64()}
		if d.bad || r.Offset < end || end%tree.BlockSize != 0 || r.Length <= 0 || r.Length > e.Size-r.Offset || r.Offset%tree.BlockSize != 0 {
			d.fail()
			return
		}
		end = r.Offset + r.Length
		e.Body.Runs = append(e.Body.Runs, r)
	}
}
