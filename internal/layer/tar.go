package layer

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/fstree"
)

const (
	blockSize   = 512           // of a tar
	maxLongName = 1 << 20       // bytes of a GNU long name or a set of PAX records
	maxFileSize = 1<<44 - 1<<12 // bytes: 2^32 - 1 blocks of 4 KiB, the most that ext4 maps
	maxNameList = 10            // names that a warning lists
)

// Type flags of tar headers: POSIX.1-2001 pax(1) "ustar Interchange Format",
// and the GNU ones of tar.h in GNU tar.
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

// item is an entry as it stands in the stream.
type item struct {
	entry  fstree.Entry
	left   int64        // bytes of data and padding that follow in the stream
	sparse bool         // only map is stored
	runs   []fstree.Run // the stored pieces of a sparse file
}

// parts returns the pieces of the file that the stream holds.
func (it *item) parts() []fstree.Run {
	if it.sparse {
		return it.runs
	}
	return []fstree.Run{{Length: it.entry.Size}}
}

// tarReader reads entries. Between two calls of next the caller consumes what
// the item says is left of it.
type tarReader struct {
	s        *stream
	maxXattr int
	ended    bool // the end-of-archive marker was there
	globals  records
	volumes  []string
	it       item
}

// next returns the next entry, or io.EOF where the archive ends.
func (t *tarReader) next() (*item, error) {
	var x extras
	for {
		h, err := t.header()
		if err != nil {
			if errors.Is(err, io.EOF) && x.any {
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
			return nil, &fstree.EntryError{Name: t.it.entry.Name, Err: err}
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
	h := new(header)
	copy(h[:], b)
	return h, h.check()
}

// marker reads the second of the two zero blocks that end an archive. Some
// writers leave it out at the very end.
func (t *tarReader) marker() error {
	b, err := t.s.block()
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err == nil && !isZero(b) {
		return errors.New("tar header: a block of zeros between two entries")
	}
	t.ended = true
	return io.EOF
}

// extras are what extended headers say of the entry that follows them.
type extras struct {
	any                bool
	longName, longLink *string
	pax                records
}

// extended takes in a header that is not an entry but tells of the next one.
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
			t.globals = append(t.globals, list...)
			if t.globals.size() > maxLongName {
				return false, &fstree.LimitError{What: "bytes of global PAX records", Limit: maxLongName}
			}
			return true, nil
		}
		x.any, x.pax = true, list
		return true, nil
	case flagVolume: // a label of the archive, not of a file
		t.volumes = append(t.volumes, h.name())
		size, err := h.size()
		if err != nil {
			return false, err
		}
		return true, t.s.discard(padded(size))
	}
	return false, nil
}

// text reads the body of an extended header.
func (t *tarReader) text(h *header) (string, error) {
	size, err := h.size()
	if err != nil {
		return "", err
	}
	if size > maxLongName {
		return "", &fstree.LimitError{What: "bytes in an extended tar header", Limit: maxLongName}
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
	return b.String(), t.s.discard(padded(size) - size)
}

// longText reads a GNU long name, which a NUL ends.
func (t *tarReader) longText(h *header) (string, error) {
	text, err := t.text(h)
	text, _, _ = strings.Cut(text, "\x00")
	return text, err
}

// fill makes t.it what h and the extended headers before it say.
func (t *tarReader) fill(h *header, name string, x *extras) error {
	t.it = item{entry: fstree.Entry{Name: name, Linkname: h.linkname()}}
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
	if size < 0 || size > maxFileSize {
		return fmt.Errorf("size %d is out of range", size)
	}
	if err := checkNames(e); err != nil {
		return err
	}
	t.it.left = padded(size)
	if e.Type, err = h.fileType(e.Name); err != nil {
		return err
	}
	if e.Type != fstree.Regular {
		return nil
	}
	e.Size = size
	return t.sparse(h, &p.sparse, size)
}

// checkNames refuses names before memory is spent on them.
func checkNames(e *fstree.Entry) error {
	if len(e.Name) > fstree.MaxPath {
		return &fstree.LimitError{What: "bytes in a path", Limit: fstree.MaxPath}
	}
	if len(e.Linkname) > fstree.MaxPath {
		return &fstree.LimitError{What: "bytes in a link target", Limit: fstree.MaxPath}
	}
	if strings.ContainsRune(e.Name, 0) || strings.ContainsRune(e.Linkname, 0) {
		return errors.New("NUL in a name")
	}
	return nil
}

// warnings tells of what was left out.
func (t *tarReader) warnings() []string {
	if len(t.volumes) == 0 {
		return nil
	}
	names := slices.Clone(t.volumes[:min(len(t.volumes), maxNameList)])
	return []string{fmt.Sprintf("%d volume labels left out: %q", len(t.volumes), names)}
}

// padded rounds n up to whole blocks of the tar.
func padded(n int64) int64 {
	if n > math.MaxInt64-blockSize {
		return n
	}
	return (n + blockSize - 1) / blockSize * blockSize
}
