package format

// Extended attributes, linux/fs/ext4/xattr.h. The sizes are in bytes.
const (
	XattrMagic    = 0xea020000
	XattrHead     = 32      // struct ext4_xattr_header
	XattrEntry    = 16      // struct ext4_xattr_entry without its name
	MaxXattrValue = 1 << 16 // XATTR_SIZE_MAX of linux/limits.h; the limit of ext4 is higher
)

// Namespaces of extended attributes, e_name_index (EXT4_XATTR_INDEX_*).
const (
	XattrIndexUser       = 1
	XattrIndexACLAccess  = 2
	XattrIndexACLDefault = 3
	XattrIndexTrusted    = 4
	XattrIndexSecurity   = 6
	XattrIndexSystem     = 7
	XattrIndexRichACL    = 8
)

// Names of the attributes that hold an access control list. On disk they have an
// index of their own and an empty name.
const (
	XattrACLAccess  = "system.posix_acl_access"
	XattrACLDefault = "system.posix_acl_default"
)

// XattrPrefix returns the beginning of the names in a namespace. It reports
// false if ext4 has no such namespace.
func XattrPrefix(index byte) (prefix string, ok bool) {
	switch index {
	case XattrIndexUser:
		prefix = "user."
	case XattrIndexACLAccess:
		prefix = XattrACLAccess
	case XattrIndexACLDefault:
		prefix = XattrACLDefault
	case XattrIndexTrusted:
		prefix = "trusted."
	case XattrIndexSecurity:
		prefix = "security."
	case XattrIndexSystem:
		prefix = "system."
	case XattrIndexRichACL:
		prefix = "system.richacl"
	}
	return prefix, prefix != ""
}
