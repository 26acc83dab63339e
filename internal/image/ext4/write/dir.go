package write

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/image/ext4/format"
	"github.com/banger-vm/banger/internal/image/tree"
)

// leafFill is the number of bytes up to which the leaves of a hash tree are filled:
// 80 %, because the kernel splits a full leaf at the first name that it adds.
const leafFill = blockSize * 8 / 10

// dirName is a name in a directory to write.
type dirName struct {
	name  string
	inode uint32
	hash  uint32
	typ   tree.Type
}

// leaf is a block of a hash tree: the names from index from up to index to, in the
// order of their hashes.
type leaf struct {
	from, to int
	key      uint32 // the lowest hash; its lowest bit is set if the leaf before has names of that hash
}

// dirBuilder makes the blocks of directories, one directory after the other. It
// reuses its memory.
type dirBuilder struct {
	hash   dirHash
	names  []dirName
	leaves []leaf
	linear bool // the directory is one block without a hash tree
}

// recordSize returns the size in bytes of the directory entry of a name.
func recordSize(name string) int { return (format.DirEntryHead + len(name) + 3) &^ 3 }

// load loads the names of a directory and more, names that the tree does not have,
// and distributes them over blocks. numbers holds the inode numbers by ID.
func (d *dirBuilder) load(t *tree.Tree, dir tree.ID, numbers []uint32, more ...dirName) {
	d.names = append(d.names[:0], more...)
	for name, id := range t.Children(dir) {
		d.names = append(d.names, dirName{name: name, inode: numbers[id], typ: t.Type(id)})
	}
	d.distribute()
}

// distribute distributes the names over leaves if they do not fit into one block.
func (d *dirBuilder) distribute() {
	d.leaves = d.leaves[:0]
	used := recordSize(".") + recordSize("..")
	for i := range d.names {
		used += recordSize(d.names[i].name)
	}
	if d.linear = used <= direntArea; d.linear {
		return
	}
	for i := range d.names {
		d.names[i].hash = d.hash.sum(d.names[i].name)
	}
	slices.SortFunc(d.names, func(a, b dirName) int {
		if c := cmp.Compare(a.hash, b.hash); c != 0 {
			return c
		}
		return strings.Compare(a.name, b.name)
	})
	l, used := leaf{}, 0
	for i := range d.names {
		size := recordSize(d.names[i].name)
		if used > 0 && used+size > leafFill {
			l.to = i
			d.leaves = append(d.leaves, l)
			l = leaf{from: i, key: d.names[i].hash}
			if d.names[i-1].hash == l.key {
				l.key |= 1
			}
			used = 0
		}
		used += size
	}
	l.to = len(d.names)
	d.leaves = append(d.leaves, l)
}

// nodes returns the number of nodes between the root of the hash tree and the
// leaves.
func (d *dirBuilder) nodes() int {
	if d.linear || len(d.leaves) <= dxRootLimit {
		return 0
	}
	return (len(d.leaves) + dxNodeFill - 1) / dxNodeFill
}

// dxNodeFill is the number of entries up to which nodes are filled, as leafFill is
// for leaves.
const dxNodeFill = dxNodeLimit * 8 / 10

// blocks returns the number of blocks of the directory. It returns an error if the
// hash tree would need a third level of nodes.
func (d *dirBuilder) blocks() (int, error) {
	if d.linear {
		return 1, nil
	}
	if d.nodes() > dxRootLimit { // a third level needs the feature large_dir
		return 0, fmt.Errorf("directory has %d names, more than its index can hold", len(d.names))
	}
	return 1 + d.nodes() + len(d.leaves), nil
}

// subdirectories returns the number of names that are directories.
func (d *dirBuilder) subdirectories() int {
	n := 0
	for i := range d.names {
		if d.names[i].typ == tree.Directory {
			n++
		}
	}
	return n
}

// encode calls put for each block of the directory, in order: the root of the hash
// tree, the nodes, the leaves. The slice is valid until put returns. self and parent
// are the inode numbers of . and .., seed is that of the directory's checksums.
func (d *dirBuilder) encode(self, parent, seed uint32, put func([]byte) error) error {
	b := make([]byte, blockSize)
	if d.linear {
		at := putRecord(b, 0, ".", self, tree.Directory)
		last := at
		at = putRecord(b, at, "..", parent, tree.Directory)
		for i := range d.names {
			last = at
			at = putRecord(b, at, d.names[i].name, d.names[i].inode, d.names[i].typ)
		}
		sealLeaf(b, last, seed)
		return put(b)
	}
	d.root(b, self, parent, seed)
	if err := put(b); err != nil {
		return err
	}
	first := 1 + d.nodes() // block of the first leaf
	for i := 0; d.nodes() > 0 && i < len(d.leaves); i += dxNodeFill {
		clear(b)
		le.PutUint16(b[4:], blockSize)
		part := d.leaves[i:min(i+dxNodeFill, len(d.leaves))]
		putIndex(b, format.DXNodeHead, dxNodeLimit, len(part), seed, func(j int) (uint32, uint32) {
			return part[j].key, uint32(first + i + j)
		})
		if err := put(b); err != nil {
			return err
		}
	}
	for _, l := range d.leaves {
		clear(b)
		at, last := 0, 0
		for i := l.from; i < l.to; i++ {
			last = at
			at = putRecord(b, at, d.names[i].name, d.names[i].inode, d.names[i].typ)
		}
		sealLeaf(b, last, seed)
		if err := put(b); err != nil {
			return err
		}
	}
	return nil
}

// root writes struct dx_root of linux/fs/ext4/namei.c: the entries of . and .. and
// the root of the hash tree. The length of the entry of .. covers the rest of the
// block, so an implementation without hash trees skips the root.
func (d *dirBuilder) root(b []byte, self, parent, seed uint32) {
	putRecord(b, putRecord(b, 0, ".", self, tree.Directory), "..", parent, tree.Directory)
	le.PutUint16(b[12+4:], blockSize-12)
	info := b[24:]
	info[4], info[5] = format.HashHalfMD4, 8 // info_length, the size of struct dx_root_info
	entries, key := len(d.leaves), func(i int) (uint32, uint32) { return d.leaves[i].key, uint32(1 + i) }
	if n := d.nodes(); n > 0 {
		info[6] = 1 // indirect levels
		entries, key = n, func(i int) (uint32, uint32) { return d.leaves[i*dxNodeFill].key, uint32(1 + i) }
	}
	putIndex(b, format.DXRootHead, dxRootLimit, entries, seed, key)
}

// putIndex writes the entries of a node, struct dx_entry of linux/fs/ext4/namei.c,
// behind head bytes. The first entry has limit and count in place of its hash. The
// checksum does not cover unused entries (ext4_dx_csum in the same file).
func putIndex(b []byte, head, limit, count int, seed uint32, entry func(int) (key, block uint32)) {
	for i := range count {
		key, block := entry(i)
		le.PutUint32(b[head+i*format.DXEntry:], key)
		le.PutUint32(b[head+i*format.DXEntry+4:], block)
	}
	le.PutUint16(b[head:], uint16(limit))
	le.PutUint16(b[head+2:], uint16(count))
	var tail [format.DXTail]byte // dt_reserved, and zeros in place of dt_checksum
	sum := format.Checksum(format.Checksum(seed, b[:head+count*format.DXEntry]), tail[:])
	le.PutUint32(b[head+limit*format.DXEntry+4:], sum)
}

// putRecord writes an entry, struct ext4_dir_entry_2 of linux/fs/ext4/ext4.h, at
// offset at of a block. It returns the offset of the next.
func putRecord(b []byte, at int, name string, inode uint32, typ tree.Type) int {
	size := recordSize(name)
	le.PutUint32(b[at:], inode)
	le.PutUint16(b[at+4:], uint16(size))
	b[at+6], b[at+7] = byte(len(name)), fileType(typ)
	copy(b[at+format.DirEntryHead:], name)
	return at + size
}

// sealLeaf completes a block of a directory. It extends the entry at offset last to
// the tail and writes the tail with the checksum.
func sealLeaf(b []byte, last int, seed uint32) {
	le.PutUint16(b[last+4:], uint16(direntArea-last))
	tail := b[direntArea:]
	le.PutUint16(tail[4:], format.DirTail)
	tail[7] = format.DirTailTag
	le.PutUint32(tail[8:], format.Checksum(seed, b[:direntArea]))
}

// emptyLeaf makes b a block of a directory without names.
func emptyLeaf(b []byte, seed uint32) {
	clear(b)
	sealLeaf(b, 0, seed)
}

// fileType returns the type of file for a directory entry.
func fileType(t tree.Type) byte {
	switch t {
	case tree.Regular:
		return format.FileTypeRegular
	case tree.Directory:
		return format.FileTypeDirectory
	case tree.CharDevice:
		return format.FileTypeCharDevice
	case tree.BlockDevice:
		return format.FileTypeBlockDevice
	case tree.Fifo:
		return format.FileTypeFifo
	case tree.Symlink:
		return format.FileTypeSymlink
	case tree.HardLink: // the merged tree has none
	}
	return 0
}
