package write

import (
	"fmt"
	"io"
	"os"
)

// DataFile stores the spool of one layer inside the disk, before the disk is laid
// out. Its offsets are those of the spool. It places the data where Plan expects
// the bodies of the layer Options.Direct, so these need not be copied. The places
// do not depend on the size of the disk, which is not known yet.
type DataFile struct {
	f     *os.File
	space *space
}

// NewDataFile returns the DataFile of the disk f, which must be open for reading
// and writing and should be empty.
func NewDataFile(f *os.File) *DataFile { return &DataFile{f: f, space: anySizeSpace()} }

// WriteAt writes p at offset off of the spool. It is safe for concurrent use on
// ranges that do not overlap. It returns an error if the range is outside of the
// largest disk.
func (d *DataFile) WriteAt(p []byte, off int64) (int, error) {
	return d.each(p, off, d.f.WriteAt)
}

// ReadAt reads from offset off of the spool.
func (d *DataFile) ReadAt(p []byte, off int64) (int, error) {
	return d.each(p, off, d.f.ReadAt)
}

// each calls do for each piece of p that is in one piece on the disk, with the
// piece's offset there. It returns the sum of the counts of do.
func (d *DataFile) each(p []byte, off int64, do func([]byte, int64) (int, error)) (int, error) {
	if off < 0 || off+int64(len(p)) > d.space.total*blockSize {
		return 0, fmt.Errorf("data at %d to %d: outside of the largest disk", off, off+int64(len(p)))
	}
	done := 0
	for done < len(p) {
		block, count := d.space.at(off / blockSize)
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
