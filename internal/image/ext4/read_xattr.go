package ext4

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/image/tree"
)

// Extended attributes, linux/fs/ext4/xattr.h.
const (
	xattrMagic    = 0xea020000
	xattrHead     = 32 // struct ext4_xattr_header
	xattrEntry    = 16 // struct ext4_xattr_entry without its name
	maxXattrValue = 1 << 16
)

// xattrPrefixes are the namespaces by e_name_index.
var xattrPrefixes = map[byte]string{ //nolint:gochecknoglobals // a table of constants
	1: "user.", 2: aclAccess, 3: aclDefault, 4: "trusted.", 6: "security.", 7: "system.", 8: "system.richacl",
}

const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

// xattr is an entry of a list of attributes.
type xattr struct {
	index byte
	name  string // without its namespace
	value []byte // nil when it lies in an inode
	inode uint32 // that holds the value, or 0
	size  int
	hash  uint32
}

// Xattrs returns the extended attributes of an inode, sorted by name, as
// listxattr(2) and getxattr(2) give them.
func (fs *FS) Xattrs(in *Inode) ([]tree.Xattr, error) {
	list, err := fs.xattrs(in)
	if err != nil {
		return nil, err
	}
	var out []tree.Xattr
	for _, x := range list {
		value, err := fs.xattrValue(x)
		if err != nil {
			return nil, fmt.Errorf("ext4: inode %d: %w", in.Number, err)
		}
		name := xattrPrefixes[x.index] + x.name
		if name == aclAccess || name == aclDefault {
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

// xattrs gives the entries in the inode and then those in its block.
func (fs *FS) xattrs(in *Inode) ([]xattr, error) {
	var list []xattr
	if start := oldInodeSize + in.extraSize(); len(in.raw) >= start+8 && start > oldInodeSize {
		area := in.raw[start:]
		if le.Uint32(area) == xattrMagic {
			var err error
			if list, err = parseXattrs(area[4:], 0); err != nil {
				return nil, fmt.Errorf("ext4: inode %d: %w", in.Number, err)
			}
		}
	}
	if in.acl == 0 {
		return list, nil
	}
	block, err := fs.xattrBlock(in.acl)
	if err != nil {
		return nil, fmt.Errorf("ext4: inode %d: %w", in.Number, err)
	}
	more, err := parseXattrs(block, xattrHead)
	if err == nil {
		err = checkOrder(more)
	}
	if err != nil {
		return nil, fmt.Errorf("ext4: inode %d: block %d: %w", in.Number, in.acl, err)
	}
	return append(list, more...), nil
}

// xattrBlock reads a block of attributes and checks its checksum, which
// covers the block's own number.
func (fs *FS) xattrBlock(n uint64) ([]byte, error) {
	block := fs.newBlock()
	if err := fs.readBlock(n, block); err != nil {
		return nil, err
	}
	if le.Uint32(block) != xattrMagic || le.Uint32(block[8:]) != 1 {
		return nil, fmt.Errorf("block %d: no extended attributes", n)
	}
	if fs.sb.metadataCsum() && crcWithout(crc(fs.seed, le.AppendUint64(nil, n)), block, 16, 20) != le.Uint32(block[16:]) {
		return nil, fmt.Errorf("block %d: checksum does not fit", n)
	}
	return block, nil
}

// parseXattrs reads the list that begins at start and ends with four zero
// bytes. Values are found from the beginning of area.
func parseXattrs(area []byte, start int) ([]xattr, error) {
	var list []xattr
	for at := start; ; {
		if len(area)-at < 4 {
			return nil, errors.New("list of extended attributes has no end")
		}
		if le.Uint32(area[at:]) == 0 {
			return list, nil
		}
		if len(area)-at < xattrEntry || len(area)-at-xattrEntry < int(area[at]) {
			return nil, errors.New("extended attribute is cut off")
		}
		e := area[at:]
		x := xattr{
			index: e[1], name: string(e[xattrEntry : xattrEntry+int(e[0])]),
			inode: le.Uint32(e[4:]), size: int(le.Uint32(e[8:])), hash: le.Uint32(e[12:]),
		}
		at += (xattrEntry + int(e[0]) + 3) &^ 3
		if _, ok := xattrPrefixes[x.index]; !ok || strings.ContainsRune(x.name, 0) {
			return nil, fmt.Errorf("extended attribute %q: namespace %d is not known", x.name, x.index)
		}
		if x.size < 0 || x.size > maxXattrValue {
			return nil, fmt.Errorf("extended attribute %q of %d bytes", x.name, x.size)
		}
		if x.inode == 0 {
			from := int(le.Uint16(e[2:]))
			if x.size > 0 && (from < at || from+x.size > len(area)) {
				return nil, fmt.Errorf("extended attribute %q: value at %d", x.name, from)
			}
			x.value = area[min(from, len(area)):][:x.size]
		}
		list = append(list, x)
	}
}

// checkOrder wants the order in which the kernel searches a block: by
// namespace, length and bytes of the name.
func checkOrder(list []xattr) error {
	for i := 1; i < len(list); i++ {
		a, b := list[i-1], list[i]
		less := a.index < b.index || a.index == b.index &&
			(len(a.name) < len(b.name) || len(a.name) == len(b.name) && a.name < b.name)
		if !less {
			return fmt.Errorf("extended attribute %q is out of order", b.name)
		}
	}
	return nil
}

// xattrValue gives the value of an attribute, also from an inode of its own.
// Such an inode has the hash of the value in place of a time
// (ext4_xattr_inode_get_hash in linux/fs/ext4/xattr.c).
func (fs *FS) xattrValue(x xattr) ([]byte, error) {
	if x.inode == 0 {
		return x.value, nil
	}
	in, err := fs.Inode(x.inode)
	if err != nil {
		return nil, err
	}
	if in.Flags&flagEAInode == 0 || in.Size != int64(x.size) || in.Links == 0 {
		return nil, fmt.Errorf("inode %d does not hold the extended attribute %q", x.inode, x.name)
	}
	f, err := fs.Data(in)
	if err != nil {
		return nil, err
	}
	value := make([]byte, x.size)
	if _, err := f.ReadAt(value, 0); err != nil {
		return nil, err
	}
	if crc(fs.seed, value) != le.Uint32(in.raw[8:]) {
		return nil, fmt.Errorf("inode %d: hash of the extended attribute %q does not fit", x.inode, x.name)
	}
	return value, nil
}

// decodeACL turns the form on disk, version 1 of linux/fs/ext4/acl.h, into the
// one that getxattr(2) gives, version 2 of linux/posix_acl_xattr.h.
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
