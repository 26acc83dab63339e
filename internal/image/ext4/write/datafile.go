package write

import (
	"fmt"
	"io"
	"os"
)

// DataFile gives the spool of one layer a place in the disk that is to be
// made: what is written to it lies where Plan expects the bodies of
// Options.Direct. Its offsets are those of the spool. It needs no knowledge
// of the disk's size.
type DataFile struct {
	f   *os.File
	row *space
}

// NewDataFile returns the DataFile of the disk f, which should be empty and
// open for reading and writing.
func NewDataFile(f *os.File) *DataFile { return &DataFile{f: f, row: anySize()} }

// WriteAt writes p at offset off of the spool. It is safe for concurrent use
// on ranges that do not overlap.
func (d *DataFile) WriteAt(p []byte, off int64) (int, error) {
	return d.each(p, off, d.f.WriteAt)
}

// ReadAt reads what was written at offset off of the spool.
func (d *DataFile) ReadAt(p []byte, off int64) (int, error) {
	return d.each(p, off, d.f.ReadAt)
}

func (d *DataFile) each(p []byte, off int64, do func([]byte, int64) (int, error)) (int, error) {
	if off < 0 || off+int64(len(p)) > d.row.total*blockSize {
		return 0, fmt.Errorf("data at %d to %d: outside of the largest disk", off, off+int64(len(p)))
	}
	done := 0
	for done < len(p) {
		block, count := d.row.at(off / blockSize)
		within := off % blockSize
		n := min(int64(len(p)-done), count*blockSize-within)
		k, err := do(p[done:done+int(n)], block*blockSize+within)
		done += k
		if err != nil {
			return done, err
		}
		off += n
	}
	return done, nil
}

var (
	_ io.WriterAt = (*DataFile)(nil)
	_ io.ReaderAt = (*DataFile)(nil)
)
