package e2fs

import (
	"encoding/binary"
	"math"
	"strings"

	"github.com/banger-vm/banger/internal/image/tree"
)

// splitXattr is a set of extended attributes, divided into those that debugfs
// can store and those that it cannot.
type splitXattr struct {
	kept  []tree.Xattr
	lost  []tree.Xattr
	block bool // kept needs a block beside the inode
}

// splitXattrs predicts the effect of debugfs's ea_set for the attributes in
// this order. ea_set stores each attribute in the inode if it has room, or
// else in one block, and never moves a stored attribute (ext2fs_xattr_set).
func splitXattrs(all []tree.Xattr) splitXattr {
	const (
		inode    = inodeSize - 128 - 32 // without the old fields and s_want_extra_isize
		magic    = 4                    // ext2_ext_attr_magic before the attributes in the inode
		header   = 32                   // struct ext2_ext_attr_header of the block
		sentinel = 4                    // end of a list of entries
	)
	var s splitXattr
	inInode, inBlock := inode-magic-sentinel, blockSize-header-sentinel
	for _, x := range all {
		n, ok := storedSize(x)
		switch {
		case ok && n <= inInode:
			inInode -= n
		case ok && n <= inBlock:
			inBlock -= n
			s.block = true
		default:
			s.lost = append(s.lost, x)
			continue
		}
		s.kept = append(s.kept, x)
	}
	return s
}

const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

// storedSize returns the number of bytes that x takes on disk: an entry, its
// name without the namespace, and its value. It returns false if ext4 has no
// namespace for x: debugfs would store it, but the kernel would not list it.
func storedSize(x tree.Xattr) (int, bool) {
	const entry, align = 16, 4
	if !isSafe(x.Name) {
		return 0, false
	}
	if x.Name == aclAccess || x.Name == aclDefault {
		value, ok := aclSize(x.Value)
		return entry + value, ok
	}
	for _, namespace := range []string{"user.", "trusted.", "security."} {
		name, ok := strings.CutPrefix(x.Name, namespace)
		if !ok || name == "" || len(x.Name) > math.MaxUint8 {
			continue
		}
		return entry + int(roundUp(int64(len(name)), align)+roundUp(int64(len(x.Value)), align)), true
	}
	return 0, false
}

// aclSize returns the size of an ACL in ext4's own format, to which ea_set
// converts the VFS format. An entry has 8 bytes if it has an ID, and 4 bytes
// otherwise (fs/ext4/acl.h; include/uapi/linux/posix_acl_xattr.h). aclSize
// returns false if value is not a valid ACL.
func aclSize(value string) (int, bool) {
	const (
		version                        = 2
		header, wide, short            = 4, 8, 4
		userObj, user, groupObj, group = 0x01, 0x02, 0x04, 0x08
		mask, other                    = 0x10, 0x20
	)
	v := []byte(value)
	if len(v) <= header || (len(v)-header)%wide != 0 || binary.LittleEndian.Uint32(v) != version {
		return 0, false
	}
	size := header
	for v = v[header:]; len(v) > 0; v = v[wide:] {
		switch binary.LittleEndian.Uint16(v) {
		case user, group:
			size += wide
		case userObj, groupObj, mask, other:
			size += short
		default:
			return 0, false
		}
	}
	return size, true
}
