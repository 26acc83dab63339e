package layer

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/banger-vm/banger/internal/image/tree"
)

// sparseRecords are the PAX records of the sparse formats 0.0, 0.1 and 1.0,
// which the GNU tar manual describes ("Storing Sparse Files"). Tar readers
// interpret inconsistent records in different ways, and some read the file as
// an ordinary one, so check refuses them.
type sparseRecords struct {
	any          bool
	major, minor string
	name         string
	size         string // of the file, holes included
	mapped       string // keyword of the record that numbers is from
	numbers      []int64
}

func (s *sparseRecords) add(key, value string) error {
	s.any = true
	switch key := strings.TrimPrefix(key, "GNU.sparse."); key {
	case "major":
		s.major = value
	case "minor":
		s.minor = value
	case "name":
		s.name = value
	case "size", "realsize":
		if s.size != "" && s.size != value {
			return fmt.Errorf("size of the sparse file is given as %s and as %s", s.size, value)
		}
		s.size = value
	case "offset", "numbytes": // 0.0: one record for each number, alternating
		if s.mapped == "map" || (key == "offset") != (len(s.numbers)%2 == 0) {
			return errors.New("sparse map: offsets and lengths do not alternate")
		}
		s.mapped = key
		return s.number(value)
	case "map": // 0.1
		if s.mapped != "" {
			return errors.New("sparse map: given twice")
		}
		s.mapped = key
		for field := range strings.SplitSeq(value, ",") {
			if err := s.number(field); err != nil {
				return err
			}
		}
	case "numblocks": // the map implies it
	default:
		return errors.New("unknown keyword of a sparse file")
	}
	return nil
}

// check returns an error if the records together do not describe a sparse file.
func (s *sparseRecords) check() error {
	if !s.any {
		return nil
	}
	switch version := s.major + "." + s.minor; version {
	case ".", "0.0", "0.1":
		if s.mapped == "" {
			return errors.New("PAX records of a sparse file: there is no map")
		}
	case "1.0":
		if s.mapped != "" {
			return errors.New("PAX records of a sparse file: format 1.0 has its map before the data, not in a record")
		}
	default:
		return fmt.Errorf("PAX records of a sparse file: unknown format %q", version)
	}
	return nil
}

func (s *sparseRecords) version1() bool { return s.major == "1" }

// fileSize returns the size of the file, holes included.
func (s *sparseRecords) fileSize() (int64, error) {
	n, err := strconv.ParseInt(s.size, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("sparse map: file size %q is no number", s.size)
	}
	return n, nil
}

func (s *sparseRecords) number(text string) error {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return fmt.Errorf("sparse map: %q is no number", text)
	}
	if len(s.numbers) >= 2*maxRuns {
		return &tree.LimitError{What: "holes in a file", Limit: maxRuns}
	}
	s.numbers = append(s.numbers, n)
	return nil
}

// sparse sets the runs of t.it, the pieces of the file that are stored, if
// the entry is a sparse file. stored is the number of stored bytes.
func (t *tarReader) sparse(h *header, pax *sparseRecords, stored int64) (err error) {
	var numbers []int64
	var size int64
	switch {
	case h.flag() == flagSparse && pax.any:
		return errors.New("sparse map: both in the header and in PAX records")
	case h.flag() == flagSparse:
		numbers, size, err = t.oldSparse(h)
	case pax.any:
		numbers = pax.numbers
		if size, err = pax.fileSize(); err == nil && pax.version1() {
			var used int64
			numbers, used, err = t.mapBeforeData(stored)
			stored -= used
			t.it.left -= used
		}
	default:
		return nil
	}
	if err != nil {
		return err
	}
	t.it.sparse = true
	t.it.entry.Size = size
	t.it.runs, err = checkMap(numbers, size, stored)
	return err
}

// checkMap converts pairs of offset and length to runs. It returns an error
// unless they ascend, lie within the file and add up to the stored bytes.
func checkMap(numbers []int64, size, stored int64) ([]tree.Run, error) {
	if len(numbers)%2 != 0 {
		return nil, errors.New("sparse map: odd count of numbers")
	}
	if size < 0 || size > maxFileSize {
		return nil, fmt.Errorf("sparse map: file size %d is out of range", size)
	}
	var runs []tree.Run
	end, sum := int64(0), int64(0)
	for i := 0; i < len(numbers); i += 2 {
		r := tree.Run{Offset: numbers[i], Length: numbers[i+1]}
		if r.Offset < end || r.Length < 0 || r.Offset > size || r.Length > size-r.Offset {
			return nil, errors.New("sparse map: pieces overlap or lie outside the file")
		}
		end = r.Offset + r.Length
		sum += r.Length
		runs = append(runs, r)
	}
	if sum != stored {
		return nil, fmt.Errorf("sparse map: has %d bytes of data, %d are stored", sum, stored)
	}
	return runs, nil
}

// oldSparse reads the map of GNU tar's format from before PAX: four pieces in
// the header, and more in the blocks that follow it (struct oldgnu_header and
// sparse_header in tar.h of GNU tar).
func (t *tarReader) oldSparse(h *header) (numbers []int64, size int64, err error) {
	if !h.isGNU() {
		return nil, 0, errors.New("sparse entry in a header that is not GNU's")
	}
	if size, err = number(h[483:495]); err != nil {
		return nil, 0, fmt.Errorf("sparse map: %w", err)
	}
	numbers, err = sparseFields(nil, h[386:482])
	for extended := h[482] != 0; extended && err == nil; {
		var b []byte
		if b, err = t.s.innerBlock(); err != nil {
			break
		}
		if len(numbers) > 2*maxRuns {
			return nil, 0, &tree.LimitError{What: "holes in a file", Limit: maxRuns}
		}
		extended = b[504] != 0
		numbers, err = sparseFields(numbers, b[:504])
	}
	return numbers, size, err
}

// sparseFields appends pairs of 12-byte numbers up to the first empty pair.
func sparseFields(numbers []int64, fields []byte) ([]int64, error) {
	for ; len(fields) >= 24; fields = fields[24:] {
		if fields[0] == 0 {
			break
		}
		for _, f := range [][]byte{fields[:12], fields[12:24]} {
			n, err := number(f)
			if err != nil {
				return nil, fmt.Errorf("sparse map: %w", err)
			}
			numbers = append(numbers, n)
		}
	}
	return numbers, nil
}

// mapBeforeData reads the map of format 1.0, which comes before the data:
// decimal numbers, one per line, the first of which is the number of pairs.
// The map is padded to whole blocks. used is its length in bytes.
func (t *tarReader) mapBeforeData(stored int64) (numbers []int64, used int64, err error) {
	var digits []byte
	want := int64(-1)
	for want < 0 || int64(len(numbers)) < want {
		if used += blockSize; used > stored {
			return nil, 0, errors.New("sparse map: longer than the entry")
		}
		b, err := t.s.innerBlock()
		if err != nil {
			return nil, 0, err
		}
		for _, c := range b {
			if c != '\n' {
				if digits = append(digits, c); len(digits) > 20 {
					return nil, 0, errors.New("sparse map: number is too long")
				}
				continue
			}
			n, err := strconv.ParseInt(string(digits), 10, 64)
			if err != nil || n < 0 {
				return nil, 0, fmt.Errorf("sparse map: %q is no number", digits)
			}
			digits = digits[:0]
			if want < 0 {
				if n > maxRuns {
					return nil, 0, &tree.LimitError{What: "holes in a file", Limit: maxRuns}
				}
				want = 2 * n
			} else {
				numbers = append(numbers, n)
			}
			if int64(len(numbers)) == want {
				break
			}
		}
	}
	return numbers, used, nil
}
