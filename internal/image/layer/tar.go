package layer

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/image/tree"
)

const (
	blockSize   = 512           // of a tar
	maxExtended = 1 << 20       // bytes of a GNU long name or a set of PAX records
	maxFileSize = 1<<44 - 1<<12 // bytes: 2^32 - 1 blocks of 4 KiB, the most that ext4 maps
	maxNameList = 10            // names in a warning
)

// Type flags of tar headers, from POSIX.1-2001 pax(1), "ustar Interchange
// Format", and from tar.h of GNU tar.
const (
	flagRegular    = '0'
	flagOldRegular = 0
	flagHardLink   = '1'
	flagSymlink    = '2'
	flagChar       = '3'
	flagBlock      = '4'
	flagDirectory  = '5'
	flagFifo       = '6'
	flagContiguous = '7'
	flagPax        = 'x'
	flagPaxGlobal  = 'g'
	flagLongName   = 'L'
	flagLongLink   = 'K'
	flagSparse     = 'S'
	flagVolume     = 'V'
)

// item is an entry and the layout of its data in the stream.
type item struct {
	entry   tree.Entry
	left    int64      // bytes of data that follow in the stream
	padding int64      // bytes after the data
	sparse  bool       // the stream holds only runs
	runs    []tree.Run // stored pieces of a sparse file
}

// parts returns the pieces of the file that the stream holds.
func (it *item) parts() []tree.Run {
	if it.sparse {
		return it.runs
	}
	return []tree.Run{{Length: it.entry.Size}}
}

// tarReader reads entries. Between two calls of next the caller must consume
// the data and the padding of the item from the stream.
type tarReader struct {
	s        *stream
	maxXattr int
	ended    bool // the archive had an end-of-archive marker
	globals  records
	volumes  int      // number of volume labels
	labels   []string // the first maxNameList of them
	head     header
	it       item
}

// next returns the next entry, or io.EOF at the end of the archive.
func (t *tarReader) next() (*item, error) {
	var x extras
	for {
		h, err := t.header()
		if err != nil {
			if isEOF(err) && x.any {
				return nil, fmt.Errorf("tar ends after an extended header: %w", io.ErrUnexpectedEOF)
			}
			return nil, err
		}
		more, err := t.extended(h, &x)
		if err != nil {
			return nil, fmt.Errorf("tar header: %w", err)
		}
		if more {
			continue
		}
		name := h.name()
		if x.longName != nil {
			name = *x.longName
		}
		if err := t.fill(h, name, &x); err != nil {
			return nil, &tree.EntryError{Name: t.it.entry.Name, Err: err}
		}
		return &t.it, nil
	}
}

// header reads one header block, or io.EOF at the end of the archive.
func (t *tarReader) header() (*header, error) {
	b, err := t.s.block()
	if err != nil {
		return nil, err
	}
	if isZero(b) {
		return nil, t.marker()
	}
	copy(t.head[:], b)
	return &t.head, t.head.check()
}

// marker reads the second of the two zero blocks that end an archive. It may
// be missing at the end of the stream, because some writers leave it out.
func (t *tarReader) marker() error {
	b, err := t.s.block()
	if err != nil && !isEOF(err) {
		return err
	}
	if err == nil && !isZero(b) {
		return errors.New("tar header: a block of zeros between two entries")
	}
	t.ended = true
	return io.EOF
}

// extras are the values that extended headers give for the next entry.
type extras struct {
	any                bool
	longName, longLink *string
	pax                records
}

// extended reads h into x if h is an extended header or a volume label, and
// reports whether it is one.
func (t *tarReader) extended(h *header, x *extras) (bool, error) {
	switch h.flag() {
	case flagLongName, flagLongLink:
		text, err := t.longText(h)
		if err != nil {
			return false, err
		}
		x.any = true
		if h.flag() == flagLongName {
			x.longName = &text
		} else {
			x.longLink = &text
		}
		return true, nil
	case flagPax, flagPaxGlobal:
		text, err := t.text(h)
		if err != nil {
			return false, err
		}
		list, err := parseRecords(text)
		if err != nil {
			return false, err
		}
		if h.flag() == flagPaxGlobal {
			t.globals, err = t.globals.withGlobal(list)
			return true, err
		}
		x.any, x.pax = true, list
		return true, nil
	case flagVolume:
		if slices.ContainsFunc(x.pax, func(r record) bool { return r.key == "size" }) {
			// Some readers apply the record, others ignore it.
			return false, errors.New("volume label has a PAX record of its size")
		}
		*x = extras{} // they apply to the label alone
		return true, t.volume(h)
	}
	return false, nil
}

// volume skips a volume label, which describes the archive and not a file.
func (t *tarReader) volume(h *header) error {
	if t.volumes++; t.volumes <= maxNameList {
		t.labels = append(t.labels, h.name())
	}
	size, err := h.size()
	if err != nil {
		return err
	}
	return t.s.discard(size + padding(size))
}

// text reads the body of an extended header.
func (t *tarReader) text(h *header) (string, error) {
	size, err := h.size()
	if err != nil {
		return "", err
	}
	if size > maxExtended {
		return "", &tree.LimitError{What: "bytes in an extended tar header", Limit: maxExtended}
	}
	var b strings.Builder
	b.Grow(int(size))
	err = t.s.each(size, func(p []byte) error {
		b.Write(p)
		return nil
	})
	if err != nil {
		return "", err
	}
	return b.String(), t.s.discard(padding(size))
}

// longText reads a GNU long name, which ends at the first NUL.
func (t *tarReader) longText(h *header) (string, error) {
	text, err := t.text(h)
	text, _, _ = strings.Cut(text, "\x00")
	return text, err
}

// fill sets t.it from the header h and the extended headers before it.
func (t *tarReader) fill(h *header, name string, x *extras) error {
	t.it = item{entry: tree.Entry{Name: name, Linkname: h.linkname()}}
	if x.longLink != nil {
		t.it.entry.Linkname = *x.longLink
	}
	e := &t.it.entry
	size, err := h.metadata(e)
	if err != nil {
		return err
	}
	p := paxState{entry: e, size: &size, maxXattr: t.maxXattr}
	if err := p.apply(t.globals, x.pax); err != nil {
		return err
	}
	if x.longName != nil && e.Name != *x.longName || x.longLink != nil && e.Linkname != *x.longLink {
		return errors.New("GNU and PAX headers give the entry different names")
	}
	if size < 0 || size > maxFileSize {
		return fmt.Errorf("size %d is out of range", size)
	}
	if err := checkNames(e); err != nil {
		return err
	}
	if e.Type, err = h.fileType(e.Name); err != nil {
		return err
	}
	if e.Type != tree.Regular {
		return nil // other types have no body; many writers store a size all the same, such as that of a link's target
	}
	e.Size, t.it.left, t.it.padding = size, size, padding(size)
	return t.sparse(h, &p.sparse, size)
}

// checkNames returns an error if a name of the entry is too long, empty or
// has a NUL, before the name takes memory in the table and in the tree.
func checkNames(e *tree.Entry) error {
	if len(e.Name) > tree.MaxPath {
		return &tree.LimitError{What: "bytes in a path", Limit: tree.MaxPath}
	}
	if len(e.Linkname) > tree.MaxPath {
		return &tree.LimitError{What: "bytes in a link target", Limit: tree.MaxPath}
	}
	if e.Name == "" {
		return errors.New("name is empty")
	}
	if strings.ContainsRune(e.Name, 0) || strings.ContainsRune(e.Linkname, 0) {
		return errors.New("NUL in a name")
	}
	return nil
}

// warnings returns a warning for the volume labels that the reader left out.
func (t *tarReader) warnings() []string {
	if t.volumes == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%d volume labels left out: %q", t.volumes, t.labels)}
}

// padding returns the number of bytes that follow n bytes up to the next
// block of the tar.
func padding(n int64) int64 { return -n & (blockSize - 1) }
