package write

import (
	"fmt"
	"os"
)

// bufferSize is how much metadata is written at a time.
const bufferSize = 1 << 20

// metaWriter puts blocks of metadata one after the other into the row that is
// set aside for them.
type metaWriter struct {
	f     *os.File
	row   *space
	pos   int64 // in the row, of the next block
	end   int64 // of the row: what lies behind is not for metadata
	buf   []byte
	start int64 // block of the disk where buf goes
}

// next returns where the next block goes.
func (m *metaWriter) next() int64 {
	block, _ := m.row.at(m.pos)
	return block
}

// put writes a block and returns where it is.
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

func (m *metaWriter) flush() error {
	_, err := m.f.WriteAt(m.buf, m.start*blockSize)
	m.buf = m.buf[:0]
	return err
}

// tableWriter fills the inode tables, group after group.
type tableWriter struct {
	f      *os.File
	seed   uint32
	groups []groupState
	group  int64
	buf    []byte // the table of the group, as far as it is in use
}

// put takes an inode. Numbers may be in any order within a group.
func (t *tableWriter) put(number uint32, in *diskInode) error {
	t.reserve(number)
	if in.mode&0xf000 == 0x4000 {
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

// reserve counts a number as used.
func (t *tableWriter) reserve(number uint32) {
	g := &t.groups[(number-1)/groupInodes]
	g.inodes = max(g.inodes, int64((number-1)%groupInodes)+1)
}

func (t *tableWriter) flush() error {
	_, err := t.f.WriteAt(t.buf, inodeTable(t.group)*blockSize)
	t.buf = t.buf[:0]
	return err
}
