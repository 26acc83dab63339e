package read

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/image/ext4/format"
	"github.com/banger-vm/banger/internal/image/tree"
)

// XattrEntry is an entry of a list of extended attributes, struct
// ext4_xattr_entry of linux/fs/ext4/xattr.h.
type XattrEntry struct {
	Index byte   // of its namespace
	Name  string // without its namespace
	Value []byte // nil if an inode holds it
	Inode uint32 // the inode that holds the value, or 0
	Size  int    // of the value in bytes
	Hash  uint32 // e_hash
}

// Xattrs returns the extended attributes of an inode, sorted by name. Names and
// values are in the form of listxattr(2) and getxattr(2).
func (fs *FS) Xattrs(in *Inode) ([]tree.Xattr, error) {
	list, err := fs.XattrEntries(in)
	if err != nil {
		return nil, err
	}
	var out []tree.Xattr
	for _, x := range list {
		value, err := fs.xattrValue(x)
		if err != nil {
			return nil, fmt.Errorf("ext4: inode %d: %w", in.Number, err)
		}
		prefix, _ := format.XattrPrefix(x.Index)
		name := prefix + x.Name
		if name == format.XattrACLAccess || name == format.XattrACLDefault {
			if value, err = decodeACL(value); err != nil {
				return nil, fmt.Errorf("ext4: inode %d: %s: %w", in.Number, name, err)
			}
		}
		out = append(out, tree.Xattr{Name: name, Value: string(value)})
	}
	slices.SortFunc(out, func(a, b tree.Xattr) int { return strings.Compare(a.Name, b.Name) })
	for i := 1; i < len(out); i++ {
		if out[i].Name == out[i-1].Name {
			return nil, fmt.Errorf("ext4: inode %d: extended attribute %q twice", in.Number, out[i].Name)
		}
	}
	return out, nil
}

// XattrEntries returns the entries in the inode, then the entries in its block
// of attributes. The values in inodes of their own are not read.
func (fs *FS) XattrEntries(in *Inode) ([]XattrEntry, error) {
	var list []XattrEntry
	if start := format.OldInodeSize + in.extraSize(); len(in.raw) >= start+8 && start > format.OldInodeSize {
		area := in.raw[start:]
		if le.Uint32(area) == format.XattrMagic {
			var err error
			if list, err = ParseXattrs(area[4:], 0); err != nil {
				return nil, fmt.Errorf("ext4: inode %d: %w", in.Number, err)
			}
		}
	}
	if in.XattrBlock == 0 {
		return list, nil
	}
	block, err := fs.XattrBlock(in.XattrBlock)
	if err != nil {
		return nil, fmt.Errorf("ext4: inode %d: %w", in.Number, err)
	}
	more, err := ParseXattrs(block, format.XattrHead)
	if err == nil {
		err = checkOrder(more)
	}
	if err != nil {
		return nil, fmt.Errorf("ext4: inode %d: block %d: %w", in.Number, in.XattrBlock, err)
	}
	return append(list, more...), nil
}

// XattrBlock reads a block of extended attributes and verifies its checksum,
// which covers the block's number, too (ext4_xattr_block_csum in
// linux/fs/ext4/xattr.c).
func (fs *FS) XattrBlock(n uint64) ([]byte, error) {
	block := fs.newBlock()
	if err := fs.ReadBlock(n, block); err != nil {
		return nil, err
	}
	if le.Uint32(block) != format.XattrMagic || le.Uint32(block[8:]) != 1 {
		return nil, fmt.Errorf("block %d: no extended attributes", n)
	}
	if fs.sb.MetadataCsum() && format.ChecksumWithout(format.Checksum(fs.seed, le.AppendUint64(nil, n)), block, 16, 20) != le.Uint32(block[16:]) {
		return nil, fmt.Errorf("block %d: checksum does not fit", n)
	}
	return block, nil
}

// ParseXattrs decodes the list of attributes that begins at offset start of area
// and ends with four zero bytes. Values have offsets from the beginning of area.
func ParseXattrs(area []byte, start int) ([]XattrEntry, error) {
	var list []XattrEntry
	for at := start; ; {
		if len(area)-at < 4 {
			return nil, errors.New("list of extended attributes has no end")
		}
		if le.Uint32(area[at:]) == 0 {
			return list, nil
		}
		if len(area)-at < format.XattrEntry || len(area)-at-format.XattrEntry < int(area[at]) {
			return nil, errors.New("extended attribute is cut off")
		}
		e := area[at:]
		x := XattrEntry{
			Index: e[1], Name: string(e[format.XattrEntry : format.XattrEntry+int(e[0])]),
			Inode: le.Uint32(e[4:]), Size: int(le.Uint32(e[8:])), Hash: le.Uint32(e[12:]),
		}
		at += (format.XattrEntry + int(e[0]) + 3) &^ 3
		if _, ok := format.XattrPrefix(x.Index); !ok || strings.ContainsRune(x.Name, 0) {
			return nil, fmt.Errorf("extended attribute %q: namespace %d is not known", x.Name, x.Index)
		}
		if x.Size < 0 || x.Size > format.MaxXattrValue {
			return nil, fmt.Errorf("extended attribute %q of %d bytes", x.Name, x.Size)
		}
		if x.Inode == 0 {
			from := int(le.Uint16(e[2:]))
			if x.Size > 0 && (from < at || from+x.Size > len(area)) {
				return nil, fmt.Errorf("extended attribute %q: value at %d", x.Name, from)
			}
			x.Value = area[min(from, len(area)):][:x.Size]
		}
		list = append(list, x)
	}
}

// checkOrder returns an error if a list is not in the order in which the kernel
// searches a block: by namespace, then by length of the name, then by its bytes
// (xattr_find_entry in linux/fs/ext4/xattr.c).
func checkOrder(list []XattrEntry) error {
	for i := 1; i < len(list); i++ {
		a, b := list[i-1], list[i]
		less := a.Index < b.Index || a.Index == b.Index &&
			(len(a.Name) < len(b.Name) || len(a.Name) == len(b.Name) && a.Name < b.Name)
		if !less {
			return fmt.Errorf("extended attribute %q is out of order", b.Name)
		}
	}
	return nil
}

// xattrValue returns the value of an attribute. If an inode holds the value,
// xattrValue reads it and verifies its hash, which the inode has in place of the
// access time (ext4_xattr_inode_get_hash in linux/fs/ext4/xattr.c).
func (fs *FS) xattrValue(x XattrEntry) ([]byte, error) {
	if x.Inode == 0 {
		return x.Value, nil
	}
	in, err := fs.Inode(x.Inode)
	if err != nil {
		return nil, err
	}
	if in.Flags&format.FlagEAInode == 0 || in.Size != int64(x.Size) || in.Links == 0 {
		return nil, fmt.Errorf("inode %d does not hold the extended attribute %q", x.Inode, x.Name)
	}
	f, err := fs.Data(in)
	if err != nil {
		return nil, err
	}
	value := make([]byte, x.Size)
	if _, err := f.ReadAt(value, 0); err != nil {
		return nil, err
	}
	if format.Checksum(fs.seed, value) != le.Uint32(in.raw[8:]) {
		return nil, fmt.Errorf("inode %d: hash of the extended attribute %q does not fit", x.Inode, x.Name)
	}
	return value, nil
}

// decodeACL converts an access control list from the form on disk, version 1 of
// linux/fs/ext4/acl.h, to the form of getxattr(2), version 2 of
// linux/posix_acl_xattr.h.
func decodeACL(data []byte) ([]byte, error) {
	const user, named = 0x02, 0x08
	if len(data) < 4 || le.Uint32(data) != 1 {
		return nil, errors.New("not an access control list")
	}
	out := le.AppendUint32(nil, 2)
	for data = data[4:]; len(data) > 0; {
		if len(data) < 4 {
			return nil, errors.New("access control list is cut off")
		}
		tag, id := le.Uint16(data), ^uint32(0)
		out = append(out, data[:4]...)
		data = data[4:]
		if tag == user || tag == named {
			if len(data) < 4 {
				return nil, errors.New("access control list is cut off")
			}
			id, data = le.Uint32(data), data[4:]
		}
		out = le.AppendUint32(out, id)
	}
	return out, nil
}
