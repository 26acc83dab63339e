package write

import (
	"fmt"
	"os"

	"github.com/banger-vm/banger/internal/image/ext4/format"
)

// bufferSize is the size in bytes of a write of metadata.
const bufferSize = 1 << 20

// metaWriter writes blocks of metadata one after the other into the space that is
// reserved for them.
type metaWriter struct {
	f     *os.File
	space *space
	pos   int64 // position of the next block
	end   int64 // position at which the reserved blocks end
	buf   []byte
	start int64 // block of the disk to which buf goes
}

// next returns the number of the block that put will write next.
func (m *metaWriter) next() int64 {
	block, _ := m.space.at(m.pos)
	return block
}

// put writes a block and returns its number.
func (m *metaWriter) put(b []byte) (int64, error) {
	if m.pos >= m.end {
		return 0, fmt.Errorf("metadata takes more than the %d blocks set aside for it", m.end)
	}
	at := m.next()
	if len(m.buf) > 0 && (at != m.start+int64(len(m.buf)/blockSize) || len(m.buf) >= bufferSize) {
		if err := m.flush(); err != nil {
			return 0, err
		}
	}
	if len(m.buf) == 0 {
		m.start = at
	}
	m.buf = append(m.buf, b...)
	m.pos++
	return at, nil
}

// flush writes the buffer.
func (m *metaWriter) flush() error {
	_, err := m.f.WriteAt(m.buf, m.start*blockSize)
	m.buf = m.buf[:0]
	return err
}

// tableWriter writes the inode tables, group after group.
type tableWriter struct {
	f      *os.File
	seed   uint32 // of checksums
	groups []groupState
	group  int64  // number of the group in buf
	buf    []byte // the beginning of its table, up to the last block in use
}

// put adds an inode to its table. The numbers may come in any order within a
// group. put writes the table when the first inode of another group comes.
func (t *tableWriter) put(number uint32, in *diskInode) error {
	t.reserve(number)
	if in.mode&format.ModeType == format.ModeDirectory {
		t.groups[(number-1)/groupInodes].dirs++
	}
	if group := int64((number - 1) / groupInodes); group != t.group {
		if err := t.flush(); err != nil {
			return err
		}
		t.group = group
	}
	at := int((number-1)%groupInodes) * inodeSize
	for len(t.buf) < at+inodeSize {
		t.buf = append(t.buf, make([]byte, blockSize)...)
	}
	in.put(t.buf[at:at+inodeSize], inodeSeed(t.seed, number))
	return nil
}

// reserve marks an inode number and all before it in the group as used.
func (t *tableWriter) reserve(number uint32) {
	g := &t.groups[(number-1)/groupInodes]
	g.inodes = max(g.inodes, int64((number-1)%groupInodes)+1)
}

// flush writes the table in the buffer.
func (t *tableWriter) flush() error {
	_, err := t.f.WriteAt(t.buf, inodeTable(t.group)*blockSize)
	t.buf = t.buf[:0]
	return err
}
