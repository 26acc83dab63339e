package ext4test

import (
	"io"
	"testing"

	"github.com/banger-vm/banger/internal/image/ext4/check"
	"github.com/banger-vm/banger/internal/image/ext4/read"
)

// Overlay is a disk in memory of which one byte reads differently.
type Overlay struct {
	Disk []byte
	At   int64              // offset of the byte, -1 for none
	Flip byte               // bits of the byte that are inverted
	Note func(off, n int64) // called with each range that is read; may be nil
}

// ReadAt implements io.ReaderAt.
func (o *Overlay) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= int64(len(o.Disk)) {
		return 0, io.EOF
	}
	n := copy(p, o.Disk[off:])
	if o.At >= off && o.At < off+int64(n) {
		p[o.At-off] ^= o.Flip
	}
	if o.Note != nil {
		o.Note(off, int64(n))
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Problems returns the faults that the reader and the check find on the disk.
func (o *Overlay) Problems(t testing.TB) []string { return Problems(t, o, int64(len(o.Disk))) }

// Problems opens and checks a disk. An error of the open is the only fault.
func Problems(t testing.TB, disk io.ReaderAt, size int64) []string {
	fs, err := read.Open(disk, size)
	if err != nil {
		return []string{err.Error()}
	}
	found, err := check.Metadata(t.Context(), fs)
	if err != nil {
		t.Fatal(err)
	}
	return found
}
