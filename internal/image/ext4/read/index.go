package read

import "github.com/banger-vm/banger/internal/image/ext4/format"

// Index is the hash tree of a directory, struct dx_root of
// linux/fs/ext4/namei.c. It leads from the hash of a name to the block, the leaf,
// that holds the name's entry.
type Index struct {
	dir     *dirFile
	version byte   // of the hash
	levels  int    // of nodes below the root
	root    []byte // its entries
}

// frame is a step of a path through the tree: a node and one of its entries.
type frame struct {
	entries []byte
	at      int // index of the entry
}

func (f *frame) count() int { return len(f.entries) / format.DXEntry }

// block returns the directory block to which the entry leads.
func (f *frame) block() uint32 { return le.Uint32(f.entries[f.at*format.DXEntry+4:]) & 0x0fffffff }

// key returns the lowest hash below entry i. Its lowest bit is set if names with
// the same hash are below the entry before, too.
func (f *frame) key(i int) uint32 {
	if i == 0 {
		return 0 // limit and count are in its place
	}
	return le.Uint32(f.entries[i*format.DXEntry:])
}

// OpenIndex opens the hash tree of a directory that has the flag
// format.FlagIndex.
func (fs *FS) OpenIndex(dir *Inode) (*Index, error) {
	d, err := fs.openDir(dir)
	if err != nil {
		return nil, err
	}
	return d.openIndex()
}

// Blocks returns the number of blocks of the directory.
func (t *Index) Blocks() int { return t.dir.blocks() }

// Names calls visit for every entry in block n of the directory. It reports
// false if the block is a node of the hash tree below the root, which has none.
func (t *Index) Names(n int, visit func(DirEntry) error) (bool, error) {
	b, err := t.dir.read(n)
	if err != nil || b.entries == nil {
		return false, err
	}
	return true, t.dir.each(b, visit)
}

// Hash returns the hash of a name in this directory. It returns an error if the
// version of the hash is unknown.
func (t *Index) Hash(name string) (uint32, error) { return t.dir.fs.nameHash(t.version, name) }

func (d *dirFile) openIndex() (*Index, error) {
	b, err := d.read(0)
	if err != nil {
		return nil, err
	}
	info := b.data[24:format.DXRootHead]
	most := 2
	if d.fs.sb.Incompat&format.IncompatLargeDir != 0 {
		most = 3
	}
	if le.Uint32(info) != 0 || info[5] != 8 || int(info[6]) >= most || info[7] != 0 {
		return nil, d.errorf(0, "root of the hash tree is not valid")
	}
	t := &Index{dir: d, version: info[4], levels: int(info[6])}
	t.root, err = d.indexEntries(b, format.DXRootHead)
	return t, err
}

// indexEntries returns the entries of the node in b, which begin at offset head.
// It checks their number and order, and the checksum, which covers the entries in
// use (ext4_dx_csum in linux/fs/ext4/namei.c).
func (d *dirFile) indexEntries(b dirBlock, head int) ([]byte, error) {
	limit, count := int(le.Uint16(b.data[head:])), int(le.Uint16(b.data[head+2:]))
	room := len(b.data) - head
	if d.fs.sb.MetadataCsum() {
		room -= format.DXTail
	}
	if limit != room/format.DXEntry || count == 0 || count > limit {
		return nil, d.errorf(b.number, "hash tree: %d entries of %d", count, limit)
	}
	if d.fs.sb.MetadataCsum() {
		tail := b.data[head+limit*format.DXEntry:]
		sum := format.Checksum(d.in.seed, b.data[:head+count*format.DXEntry])
		sum = format.Checksum(sum, tail[:4])
		if format.Checksum(sum, []byte{0, 0, 0, 0}) != le.Uint32(tail[4:]) {
			return nil, d.errorf(b.number, "hash tree: checksum does not fit")
		}
	}
	f := frame{entries: b.data[head : head+count*format.DXEntry]}
	for i := range count {
		f.at = i
		if i > 1 && f.key(i) < f.key(i-1) {
			return nil, d.errorf(b.number, "hash tree: entry %d is out of order", i)
		}
		if n := int(f.block()); n == 0 || n >= d.blocks() {
			return nil, d.errorf(b.number, "hash tree: entry %d leads to block %d", i, n)
		}
	}
	return f.entries, nil
}

// find returns the path to the first leaf that may hold a hash.
func (t *Index) find(hash uint32) ([]frame, error) {
	path := []frame{{entries: t.root}}
	for {
		f := &path[len(path)-1]
		for f.at+1 < f.count() && f.key(f.at+1) <= hash {
			f.at++
		}
		if len(path) > t.levels {
			return path, nil
		}
		entries, err := t.node(f.block())
		if err != nil {
			return nil, err
		}
		path = append(path, frame{entries: entries})
	}
}

// node returns the entries of the node in block n.
func (t *Index) node(n uint32) ([]byte, error) {
	b, err := t.dir.read(int(n))
	if err != nil {
		return nil, err
	}
	if b.entries != nil {
		return nil, t.dir.errorf(b.number, "hash tree: not a node")
	}
	return t.dir.indexEntries(b, format.DXNodeHead)
}

// next moves path to the next leaf and reports whether that leaf can hold names
// with the hash. It can if its key, without the lowest bit, is the hash.
func (t *Index) next(path []frame, hash uint32) (bool, error) {
	level := len(path) - 1
	for path[level].at+1 == path[level].count() {
		if level--; level < 0 {
			return false, nil
		}
	}
	path[level].at++
	if path[level].key(path[level].at)&^1 != hash {
		return false, nil
	}
	return true, t.descend(path, level)
}

// descend completes path from the entry at level to the first leaf below it.
func (t *Index) descend(path []frame, level int) error {
	for ; level < len(path)-1; level++ {
		entries, err := t.node(path[level].block())
		if err != nil {
			return err
		}
		path[level+1] = frame{entries: entries}
	}
	return nil
}

// Leaves calls visit for every leaf, with the lowest and the highest hash that
// its names may have. It ends on any input: it returns an error after as many
// leaves as the directory has blocks.
func (t *Index) Leaves(visit func(block int, low, high uint32) error) error {
	path, err := t.find(0)
	if err != nil {
		return err
	}
	for i := range path {
		path[i].at = 0
	}
	low := uint32(0)
	for visited := 0; ; visited++ {
		if visited == t.dir.blocks() {
			return t.dir.errorf(0, "hash tree: leads to a block twice")
		}
		leaf := int(path[len(path)-1].block())
		level := len(path) - 1
		for level >= 0 && path[level].at+1 == path[level].count() {
			level--
		}
		if level < 0 {
			return visit(leaf, low, ^uint32(0))
		}
		path[level].at++
		key := path[level].key(path[level].at)
		// If the lowest bit of the key is set, the leaf before has names of this hash.
		high := key - 2 + key&1*2
		if key == 0 || key < low {
			return t.dir.errorf(0, "hash tree: key %#x is out of order", key)
		}
		if err := visit(leaf, low, high); err != nil {
			return err
		}
		low = key &^ 1
		if err := t.descend(path, level); err != nil {
			return err
		}
	}
}
