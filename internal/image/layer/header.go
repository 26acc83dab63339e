package layer

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode"

	"github.com/banger-vm/banger/internal/image/tree"
)

// header is one header block. The field positions are from POSIX.1-2001
// pax(1), "ustar Interchange Format". GNU tar and star use the space after
// the device numbers for fields of their own.
type header [blockSize]byte

func (h *header) flag() byte { return h[156] }

func (h *header) isGNU() bool   { return string(h[257:265]) == "ustar  \x00" }
func (h *header) isUSTAR() bool { return string(h[257:263]) == "ustar\x00" }

// isStar reports whether the header has star(1)'s own format from before
// POSIX, in which the name prefix is shorter.
func (h *header) isStar() bool { return h.isUSTAR() && string(h[508:512]) == "tar\x00" }

// check verifies the checksum: the sum of all bytes, with the checksum field
// counted as spaces. check also accepts the sum of the bytes as signed
// numbers, which some old writers stored.
func (h *header) check() error {
	want, err := octal(h[148:156])
	if err != nil {
		return fmt.Errorf("tar header: checksum: %w", err)
	}
	const spaces = 8 * ' '
	sum := int64(spaces)
	for i := range 148 {
		sum += int64(h[i])
	}
	for i := 156; i < len(h); i++ {
		sum += int64(h[i])
	}
	if want != sum && want != h.signedSum() {
		return errors.New("tar header: checksum mismatch: the layer is not a tar, or it is damaged")
	}
	return nil
}

func (h *header) signedSum() int64 {
	sum := int64(0)
	for i, b := range h {
		if i >= 148 && i < 156 {
			b = ' '
		}
		sum += int64(int8(b))
	}
	return sum
}

func text(field []byte) string {
	if i := bytes.IndexByte(field, 0); i >= 0 {
		field = field[:i]
	}
	return string(field)
}

func (h *header) name() string {
	name := text(h[0:100])
	prefix := ""
	switch {
	case h.isGNU() && h.prefixInGNU():
		prefix = text(h[345:500])
	case h.isStar():
		prefix = text(h[345:476])
	case h.isUSTAR():
		prefix = text(h[345:500])
	}
	if prefix != "" {
		return prefix + "/" + name
	}
	return name
}

// prefixInGNU reports whether a GNU header has a USTAR name prefix in the
// place of GNU's access and change times. archive/tar before Go 1.8, and so
// docker of that time, wrote such headers if a number needed GNU's base 256
// and the name did not fit its field. The prefix is ASCII, because it wrote
// other names into PAX records.
func (h *header) prefixInGNU() bool {
	if strings.ContainsFunc(text(h[345:500]), func(r rune) bool { return r > unicode.MaxASCII }) {
		return false
	}
	for _, field := range [][]byte{h[345:357], h[357:369]} {
		if field[0] == 0 {
			continue
		}
		digits, _, _ := bytes.Cut(bytes.Trim(field, " \x00"), []byte{0})
		if _, err := number(field); err != nil || field[0]&0x80 == 0 && bytes.ContainsRune(digits, ' ') {
			return true
		}
	}
	return false
}

func (h *header) linkname() string { return text(h[157:257]) }

func (h *header) size() (int64, error) {
	n, err := number(h[124:136])
	if err == nil && n < 0 {
		err = fmt.Errorf("negative size %d", n)
	}
	if err != nil {
		return 0, fmt.Errorf("size: %w", err)
	}
	return n, nil
}

// metadata sets the numeric fields of e and returns the stored size.
func (h *header) metadata(e *tree.Entry) (size int64, err error) {
	var mode, uid, gid int64
	for _, f := range []struct {
		name     string
		from, to int
		n        *int64
	}{
		{"mode", 100, 108, &mode},
		{"uid", 108, 116, &uid},
		{"gid", 116, 124, &gid},
		{"size", 124, 136, &size},
		{"mtime", 136, 148, &e.Mtime.Sec},
	} {
		if *f.n, err = number(h[f.from:f.to]); err != nil {
			return 0, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	e.Mode = uint16(mode & 0o7777) // the bits above may hold the file type
	if e.UID, err = narrow("uid", uid); err != nil {
		return 0, err
	}
	if e.GID, err = narrow("gid", gid); err != nil {
		return 0, err
	}
	if h.flag() == flagChar || h.flag() == flagBlock {
		err = h.device(e)
	}
	return size, err
}

func (h *header) device(e *tree.Entry) error {
	if !h.isUSTAR() && !h.isGNU() {
		return nil // headers from before POSIX do not have these fields
	}
	major, err := number(h[329:337])
	if err != nil {
		return fmt.Errorf("device number: %w", err)
	}
	minor, err := number(h[337:345])
	if err != nil {
		return fmt.Errorf("device number: %w", err)
	}
	if e.Major, err = narrow("device number", major); err != nil {
		return err
	}
	e.Minor, err = narrow("device number", minor)
	return err
}

func narrow(field string, n int64) (uint32, error) {
	if n < 0 || n > math.MaxUint32 {
		return 0, fmt.Errorf("%s %d is out of range", field, n)
	}
	return uint32(n), nil
}

// fileType returns the type of the file from the type flag. POSIX introduced
// the flag '0'; in older headers a directory is a regular file whose name
// ends with a slash.
func (h *header) fileType(name string) (tree.Type, error) {
	switch h.flag() {
	case flagOldRegular:
		if strings.HasSuffix(name, "/") {
			return tree.Directory, nil
		}
		return tree.Regular, nil
	case flagRegular, flagContiguous, flagSparse:
		return tree.Regular, nil
	case flagHardLink:
		return tree.HardLink, nil
	case flagSymlink:
		return tree.Symlink, nil
	case flagChar:
		return tree.CharDevice, nil
	case flagBlock:
		return tree.BlockDevice, nil
	case flagDirectory:
		return tree.Directory, nil
	case flagFifo:
		return tree.Fifo, nil
	}
	return 0, fmt.Errorf("tar type flag %q is not known", h.flag())
}

// number parses a numeric field. It is octal if the top bit is clear. GNU tar
// and star set the top bit for numbers that octal has no room for; the bits
// after it are then one big-endian number in two's complement.
func number(field []byte) (int64, error) {
	if field[0]&0x80 == 0 {
		return octal(field)
	}
	n := int64(0)
	if field[0]&0x40 != 0 {
		n = -1
	}
	for i, b := range field {
		if i == 0 {
			n = n<<6 | int64(b&0x3f)
			continue
		}
		if n > math.MaxInt64>>8 || n < math.MinInt64>>8 {
			return 0, errors.New("base 256 number is out of range")
		}
		n = n<<8 | int64(b)
	}
	return n, nil
}

func octal(field []byte) (int64, error) {
	digits := bytes.Trim(field, " \x00")
	n := int64(0)
	for _, c := range digits {
		if c == ' ' || c == 0 {
			break // bytes after the terminator are not part of the number
		}
		if c < '0' || c > '7' || n > math.MaxInt64>>3 {
			return 0, fmt.Errorf("octal number %q: not valid", digits)
		}
		n = n<<3 | int64(c-'0')
	}
	return n, nil
}
