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

// Room for entries with their values: in the inode behind the magic number, in
// a block behind its header, both less four zero bytes at the end.
const (
	xattrInInode = inodeSize - format.OldInodeSize - extraSize - 4
	xattrInBlock = blockSize - format.XattrHead
	xattrEnd     = 4
)

// xattr is an extended attribute as the disk has it.
type xattr struct {
	index byte   // of its namespace
	name  string // without its namespace
	value []byte
	inode uint32 // that holds the value, or 0
	size  int
	hash  uint32
}

// xattrSet is where the extended attributes of an inode go. Values that
// neither the inode nor the block has room for get inodes of their own.
type xattrSet struct {
	inode  []xattr
	block  []xattr
	values int // of block, those that have inodes: their inode is not 0
}

func (x *xattr) entrySize() int { return (format.XattrEntry + len(x.name) + 3) &^ 3 }

func (x *xattr) valueSize() int {
	if x.inode != 0 {
		return 0
	}
	return (len(x.value) + 3) &^ 3
}

// splitName gives the namespace of an attribute as e_name_index.
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

// makeXattrs distributes the attributes of an inode. The order is the one in
// which the kernel searches a block: by namespace, length and bytes of the
// name.
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

// evict gives the largest values inodes of their own until the rest fits the
// block.
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

// encodeInode gives what is behind the fixed fields of an inode, nil for
// nothing. Hashes are 0 there, and values are found from the first entry on.
func (s *xattrSet) encodeInode() []byte {
	if len(s.inode) == 0 {
		return nil
	}
	b := make([]byte, 4+xattrInInode)
	le.PutUint32(b, format.XattrMagic)
	putXattrs(b[4:], 0, s.inode)
	return b
}

// encodeBlock writes the block at the place at of the disk, on which its
// checksum depends.
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
		all = 0 // ext4_xattr_rehash: not to be shared
	}
	le.PutUint32(b[12:], all)
	putXattrs(b, format.XattrHead, s.block)
	le.PutUint32(b[16:], format.Checksum(format.Checksum(seed, le.AppendUint64(nil, uint64(at))), b))
}

// putXattrs writes entries from start on and values from the end down.
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

// entryHash is ext4_xattr_hash_entry of linux/fs/ext4/xattr.c. For a value in
// an inode the value's checksum stands for the value.
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

// encodeACL turns the form of getxattr(2), version 2 of
// linux/posix_acl_xattr.h, into the one on disk, version 1 of
// linux/fs/ext4/acl.h, in which only named entries have an id.
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
