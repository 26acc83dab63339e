package write

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/image/ext4/format"
	"github.com/banger-vm/banger/internal/image/tree"
)

// Bytes for attributes: in the inode behind the magic number, and in a block behind
// its header. xattrEnd of them are zero and end the list.
const (
	xattrInInode = inodeSize - format.OldInodeSize - extraSize - 4
	xattrInBlock = blockSize - format.XattrHead
	xattrEnd     = 4
)

// xattr is an extended attribute in the form on disk.
type xattr struct {
	index byte   // of its namespace
	name  string // without its namespace
	value []byte
	inode uint32 // the inode that holds the value, or 0
	size  int    // of the value in bytes
	hash  uint32
}

// xattrSet distributes the extended attributes of an inode over the inode and its
// block of attributes. Values that fit into neither get inodes of their own.
type xattrSet struct {
	inode  []xattr
	block  []xattr
	values int // number of attributes in block whose value is in an inode of its own
}

// entrySize returns the size in bytes of the entry.
func (x *xattr) entrySize() int { return (format.XattrEntry + len(x.name) + 3) &^ 3 }

// valueSize returns the size in bytes of the value beside the entries: 0 if an
// inode of its own holds it.
func (x *xattr) valueSize() int {
	if x.inode != 0 {
		return 0
	}
	return (len(x.value) + 3) &^ 3
}

// splitName splits the name of an attribute into its namespace, e_name_index, and
// the rest. It returns an error if ext4 cannot hold the name.
func splitName(name string) (index byte, rest string, err error) {
	switch name {
	case format.XattrACLAccess:
		return format.XattrIndexACLAccess, "", nil
	case format.XattrACLDefault:
		return format.XattrIndexACLDefault, "", nil
	}
	for _, p := range [...]byte{format.XattrIndexUser, format.XattrIndexTrusted, format.XattrIndexSecurity} {
		prefix, _ := format.XattrPrefix(p)
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			if rest == "" || len(rest) > maxName || strings.ContainsRune(rest, 0) {
				return 0, "", fmt.Errorf("extended attribute %q: bad name", name)
			}
			return p, rest, nil
		}
	}
	return 0, "", fmt.Errorf("extended attribute %q: ext4 has no such namespace", name)
}

// makeXattrs distributes the attributes of an inode. It sorts them in the order in
// which the kernel searches a block: by namespace, then by length of the name, then
// by its bytes (xattr_find_entry in linux/fs/ext4/xattr.c). It returns an error if
// ext4 cannot hold them.
func makeXattrs(list []tree.Xattr) (set xattrSet, err error) {
	all := make([]xattr, 0, len(list))
	for _, a := range list {
		x := xattr{value: []byte(a.Value)}
		if x.index, x.name, err = splitName(a.Name); err != nil {
			return set, err
		}
		if x.index == format.XattrIndexACLAccess || x.index == format.XattrIndexACLDefault {
			if x.value, err = encodeACL(x.value); err != nil {
				return set, fmt.Errorf("extended attribute %s: %w", a.Name, err)
			}
		}
		if len(x.value) > format.MaxXattrValue {
			return set, fmt.Errorf("extended attribute %q of %d bytes: the most is %d", a.Name, len(x.value), format.MaxXattrValue)
		}
		x.size = len(x.value)
		all = append(all, x)
	}
	slices.SortFunc(all, func(a, b xattr) int {
		return cmp.Or(cmp.Compare(a.index, b.index), cmp.Compare(len(a.name), len(b.name)), strings.Compare(a.name, b.name))
	})
	room := xattrInInode - xattrEnd
	for _, x := range all {
		if n := x.entrySize() + x.valueSize(); n <= room {
			room -= n
			set.inode = append(set.inode, x)
		} else {
			set.block = append(set.block, x)
		}
	}
	return set, set.evict()
}

// evict moves the largest values to inodes of their own until the rest fits into
// the block.
func (s *xattrSet) evict() error {
	used := xattrEnd
	for i := range s.block {
		used += s.block[i].entrySize() + s.block[i].valueSize()
	}
	for used > xattrInBlock {
		largest := -1
		for i := range s.block {
			if n := s.block[i].valueSize(); n > 0 && (largest < 0 || n > s.block[largest].valueSize()) {
				largest = i
			}
		}
		if largest < 0 {
			return errors.New("more extended attributes than an inode can have")
		}
		used -= s.block[largest].valueSize()
		s.block[largest].inode = ^uint32(0) // until its number is known
		s.values++
	}
	return nil
}

// encodeInode returns the bytes of the attributes behind the fixed fields of an
// inode, or nil if there are none. In an inode the hashes are 0, and values have
// offsets from the first entry.
func (s *xattrSet) encodeInode() []byte {
	if len(s.inode) == 0 {
		return nil
	}
	b := make([]byte, 4+xattrInInode)
	le.PutUint32(b, format.XattrMagic)
	putXattrs(b[4:], 0, s.inode)
	return b
}

// encodeBlock writes the block of attributes to b. The checksum covers at, the
// number of the block.
func (s *xattrSet) encodeBlock(b []byte, at int64, seed uint32) {
	clear(b)
	le.PutUint32(b, format.XattrMagic)
	le.PutUint32(b[4:], 1) // h_refcount
	le.PutUint32(b[8:], 1) // h_blocks
	var all uint32
	for i := range s.block {
		x := &s.block[i]
		x.hash = entryHash(x, seed)
		all = all<<16 ^ all>>16 ^ x.hash
	}
	if slices.ContainsFunc(s.block, func(x xattr) bool { return x.hash == 0 }) {
		all = 0 // the block must not be shared (ext4_xattr_rehash in linux/fs/ext4/xattr.c)
	}
	le.PutUint32(b[12:], all)
	putXattrs(b, format.XattrHead, s.block)
	le.PutUint32(b[16:], format.Checksum(format.Checksum(seed, le.AppendUint64(nil, uint64(at))), b))
}

// putXattrs writes the entries from offset start up and the values from the end of
// area down.
func putXattrs(area []byte, start int, list []xattr) {
	at, end := start, len(area)
	for i := range list {
		x := &list[i]
		e := area[at:]
		e[0], e[1] = byte(len(x.name)), x.index
		if n := x.valueSize(); n > 0 {
			end -= n
			copy(area[end:], x.value)
			le.PutUint16(e[2:], uint16(end))
		}
		le.PutUint32(e[4:], x.inode)
		le.PutUint32(e[8:], uint32(x.size))
		le.PutUint32(e[12:], x.hash)
		copy(e[format.XattrEntry:], x.name)
		at += x.entrySize()
	}
}

// entryHash returns e_hash (ext4_xattr_hash_entry in linux/fs/ext4/xattr.c). If an
// inode of its own holds the value, the hash covers the value's checksum instead.
func entryHash(x *xattr, seed uint32) uint32 {
	var hash uint32
	for _, c := range []byte(x.name) {
		hash = hash<<5 ^ hash>>27 ^ uint32(c)
	}
	word := func(n uint32) { hash = hash<<16 ^ hash>>16 ^ n }
	if x.inode != 0 {
		word(format.Checksum(seed, x.value))
		return hash
	}
	for rest := x.value; len(rest) > 0; rest = rest[min(4, len(rest)):] {
		var padded [4]byte
		copy(padded[:], rest)
		word(le.Uint32(padded[:]))
	}
	return hash
}

// encodeACL converts an access control list from the form of getxattr(2), version 2
// of linux/posix_acl_xattr.h, to the form on disk, version 1 of
// linux/fs/ext4/acl.h. On disk only the entries of named users and groups have an
// ID.
func encodeACL(data []byte) ([]byte, error) {
	const (
		owner, user, owning, named, mask, other = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
		entry                                   = 8
	)
	if len(data) < 4 || le.Uint32(data) != 2 || (len(data)-4)%entry != 0 {
		return nil, errors.New("not an access control list")
	}
	out := le.AppendUint32(nil, 1)
	for data = data[4:]; len(data) > 0; data = data[entry:] {
		out = append(out, data[:4]...)
		switch tag := le.Uint16(data); tag {
		case user, named:
			out = append(out, data[4:entry]...)
		case owner, owning, mask, other:
		default:
			return nil, fmt.Errorf("access control list has a tag %#x", tag)
		}
	}
	return out, nil
}
