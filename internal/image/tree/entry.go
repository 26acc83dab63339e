package tree

// Type is the type of an inode. Its values must not change, because tables of
// contents store them on disk.
type Type uint8

// The types of entries in a layer. Only an Entry has the type HardLink. In a
// Tree a hard link is one more name of an inode.
const (
	Regular Type = iota + 1
	Directory
	Symlink
	CharDevice
	BlockDevice
	Fifo
	HardLink
)

// String returns the name of t for messages.
func (t Type) String() string {
	switch t {
	case Regular:
		return "regular file"
	case Directory:
		return "directory"
	case Symlink:
		return "symlink"
	case CharDevice:
		return "character device"
	case BlockDevice:
		return "block device"
	case Fifo:
		return "fifo"
	case HardLink:
		return "hard link"
	}
	return "unknown type"
}

// BlockSize is the unit, in bytes, of holes in files and of the positions of
// bodies in a spool. It equals the block size of the disks that banger writes.
const BlockSize = 4096

// Time is a point in time at the full width of a tar header. The zero value
// is the Unix epoch.
type Time struct {
	Sec  int64  // seconds since 1970-01-01 00:00:00 UTC, negative before
	Nsec uint32 // 0 to 999,999,999, counted forward from Sec even if Sec is negative
}

// Xattr is one extended attribute.
type Xattr struct {
	Name  string // full name with its namespace, such as "security.capability"
	Value string // bytes that getxattr(2) returns; ACLs in the VFS form, version 2
}

// Run is a range of file data between holes.
type Run struct {
	Offset int64 // in the file, bytes, a multiple of BlockSize
	Length int64 // bytes, a multiple of BlockSize except in the last run of a file
}

// Body is the location of a regular file's data in the spool of its layer.
// The spool holds the file's runs one after the other, each padded with zeros
// to a multiple of BlockSize. Holes take no space in the spool.
type Body struct {
	Layer  int   // index of the layer whose spool holds the data
	Offset int64 // in the spool, bytes, a multiple of BlockSize
	Runs   []Run // ascending and not adjacent; nil means one run of the whole file
}

// Entry is one entry of a layer's table of contents: the fields of a tar
// header and the location of its body. Names are the unchanged names of the
// header. A Merger checks them when it adds the entry.
type Entry struct {
	Name         string // as in the header, neither cleaned nor checked
	Linkname     string // target of a Symlink or HardLink, as in the header
	Type         Type
	Mode         uint16 // permission, setuid, setgid and sticky bits: 07777
	UID, GID     uint32
	Mtime        Time
	Major, Minor uint32  // of a CharDevice or BlockDevice
	Xattrs       []Xattr // sorted by name, no name twice
	Size         int64   // of a Regular file, bytes, holes included
	Body         Body    // of a Regular file; the Merger sets Layer
}
