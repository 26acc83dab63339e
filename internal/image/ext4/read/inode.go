package read

import (
	"fmt"

	"github.com/banger-vm/banger/internal/image/ext4/format"
	"github.com/banger-vm/banger/internal/image/tree"
)

// Inode is a decoded inode, struct ext4_inode of linux/fs/ext4/ext4.h.
type Inode struct {
	Number       uint32
	Type         tree.Type // 0 for a socket, and if i_mode has no type
	Mode         uint16    // permission bits, 07777
	UID, GID     uint32
	Size         int64 // bytes
	Links        uint32
	Atime        tree.Time
	Ctime        tree.Time
	Mtime        tree.Time
	Crtime       tree.Time // time of creation; zero in inodes of 128 bytes
	Flags        uint32    // i_flags, for example format.FlagIndex
	Sectors      uint64    // i_blocks in units of 512 bytes: data and its metadata blocks
	Major, Minor uint32    // of a device
	Generation   uint32
	XattrBlock   uint64 // block of extended attributes, 0 for none

	raw  []byte
	seed uint32 // of the checksums of the inode and of its metadata blocks
}

// Inode reads inode number n and verifies its checksum. It succeeds for an
// inode that is not in use, too.
func (fs *FS) Inode(n uint32) (*Inode, error) {
	raw, err := fs.RawInode(n)
	if err != nil {
		return nil, err
	}
	in, err := fs.decodeInode(n, raw)
	if err != nil {
		return nil, fmt.Errorf("ext4: inode %d: %w", n, err)
	}
	return in, nil
}

// RawInode reads the bytes of inode number n without checking them. It returns
// an error if there is no such number or if the group's descriptor is damaged.
func (fs *FS) RawInode(n uint32) ([]byte, error) {
	raw := make([]byte, fs.sb.InodeSize)
	if n == 0 || n > fs.sb.Inodes {
		return nil, fmt.Errorf("ext4: inode %d does not exist", n)
	}
	g := &fs.groups[(n-1)/fs.sb.InodesPerGroup]
	if g.Err != nil {
		return nil, fmt.Errorf("ext4: inode %d: %w", n, g.Err)
	}
	index := int64((n - 1) % fs.sb.InodesPerGroup)
	at := int64(g.InodeTable)*int64(fs.sb.BlockSize) + index*int64(fs.sb.InodeSize)
	if _, err := fs.r.ReadAt(raw, at); err != nil {
		return nil, fmt.Errorf("ext4: read inode %d: %w", n, err)
	}
	return raw, nil
}

func (fs *FS) decodeInode(n uint32, raw []byte) (*Inode, error) {
	mode := le.Uint16(raw)
	in := &Inode{
		Number: n, Type: typeOf(mode), Mode: mode & 0o7777, raw: raw,
		UID:   uint32(le.Uint16(raw[2:])) | uint32(le.Uint16(raw[0x78:]))<<16,
		GID:   uint32(le.Uint16(raw[0x18:])) | uint32(le.Uint16(raw[0x7a:]))<<16,
		Links: uint32(le.Uint16(raw[0x1a:])), Flags: le.Uint32(raw[0x20:]),
		Size:       int64(le.Uint32(raw[4:])) | int64(le.Uint32(raw[0x6c:]))<<32,
		Sectors:    uint64(le.Uint32(raw[0x1c:])) | uint64(le.Uint16(raw[0x74:]))<<32,
		Generation: le.Uint32(raw[0x64:]),
		XattrBlock: uint64(le.Uint32(raw[0x68:])) | uint64(le.Uint16(raw[0x76:]))<<32,
	}
	if in.extraSize() > len(raw)-format.OldInodeSize || in.extraSize()%4 != 0 {
		return nil, fmt.Errorf("extra size %d", in.extraSize())
	}
	in.seed = format.ChecksumUint32(format.ChecksumUint32(fs.seed, n), in.Generation)
	if fs.sb.MetadataCsum() {
		if want, got := in.checksums(); want != got {
			return nil, fmt.Errorf("checksum does not fit")
		}
	}
	if in.Size < 0 || in.Size > int64(fs.sb.BlockSize)<<32 {
		return nil, fmt.Errorf("size %d is out of range", in.Size)
	}
	if in.Flags&format.FlagHugeFile != 0 {
		in.Sectors *= uint64(fs.sb.BlockSize / 512)
	}
	if in.Type == tree.CharDevice || in.Type == tree.BlockDevice {
		in.Major, in.Minor = decodeDevice(le.Uint32(raw[0x28:]), le.Uint32(raw[0x2c:]))
	}
	in.Ctime = in.time(0xc, 0x84)
	in.Mtime = in.time(0x10, 0x88)
	in.Atime = in.time(0x8, 0x8c)
	if in.has(0x94) {
		in.Crtime = in.time(0x90, 0x94)
	}
	return in, nil
}

// extraSize returns i_extra_isize: the length in bytes of the fields behind the
// first 128 bytes.
func (in *Inode) extraSize() int {
	if len(in.raw) == format.OldInodeSize {
		return 0
	}
	return int(le.Uint16(in.raw[format.OldInodeSize:]))
}

// has reports whether the inode holds the 32-bit field at offset.
func (in *Inode) has(offset int) bool { return offset+4 <= format.OldInodeSize+in.extraSize() }

// checksums returns the checksum that the inode should have and the checksum
// that it has. Both have 16 bits if the inode has no room for 32
// (ext4_inode_csum in linux/fs/ext4/inode.c).
func (in *Inode) checksums() (want, got uint32) {
	raw, got := in.raw, uint32(le.Uint16(in.raw[0x7c:]))
	if in.extraSize() < 4 {
		return format.ChecksumWithout(in.seed, raw, 0x7c, 0x7e) & 0xffff, got
	}
	got |= uint32(le.Uint16(raw[0x82:])) << 16
	want = format.ChecksumWithout(in.seed, raw[:format.OldInodeSize], 0x7c, 0x7e)
	return format.ChecksumWithout(want, raw[format.OldInodeSize:], 2, 4), got
}

// time decodes the time whose seconds are at offset field and whose extra word,
// if the inode has it, is at offset extra: 2 bits that extend the seconds and 30
// bits of nanoseconds (EXT4_DECODE_EXTRA_TIME in linux/fs/ext4/ext4.h).
func (in *Inode) time(field, extra int) tree.Time {
	t := tree.Time{Sec: int64(int32(le.Uint32(in.raw[field:])))}
	if in.has(extra) {
		x := le.Uint32(in.raw[extra:])
		t.Sec += int64(x&3) << 32
		t.Nsec = x >> 2
	}
	return t
}

// Raw returns the bytes of the inode. The caller must not change them.
func (in *Inode) Raw() []byte { return in.raw }

// Block returns i_block: the root of the extent tree, the target of a short
// symlink or the number of a device.
func (in *Inode) Block() []byte { return in.raw[0x28:][:60] }

// typeOf returns the type of file in i_mode.
func typeOf(mode uint16) tree.Type {
	switch mode & format.ModeType {
	case format.ModeFifo:
		return tree.Fifo
	case format.ModeCharDevice:
		return tree.CharDevice
	case format.ModeDirectory:
		return tree.Directory
	case format.ModeBlockDevice:
		return tree.BlockDevice
	case format.ModeRegular:
		return tree.Regular
	case format.ModeSymlink:
		return tree.Symlink
	}
	return 0
}

// decodeDevice decodes a device number (old_decode_dev and new_decode_dev in
// linux/kdev_t.h). The first word of i_block holds the old form. If it is zero,
// the second word holds the new form.
func decodeDevice(old, wide uint32) (major, minor uint32) {
	if old != 0 {
		return old >> 8 & 0xff, old & 0xff
	}
	return wide & 0xfff00 >> 8, wide&0xff | wide>>12&0xfff00
}

// Readlink returns the target of a symlink. Targets of up to 59 bytes are in the
// inode, longer ones in a block. It returns an error if the target is empty, has
// a NUL or is as long as a block.
func (fs *FS) Readlink(in *Inode) (string, error) {
	if in.Type != tree.Symlink {
		return "", fmt.Errorf("ext4: inode %d is not a symlink", in.Number)
	}
	if in.Size == 0 || in.Size >= int64(fs.sb.BlockSize) {
		return "", fmt.Errorf("ext4: inode %d: symlink of %d bytes", in.Number, in.Size)
	}
	var target []byte
	if in.Flags&format.FlagExtents == 0 {
		if in.Size >= int64(len(in.Block())) {
			return "", fmt.Errorf("ext4: inode %d: symlink of %d bytes in the inode", in.Number, in.Size)
		}
		target = in.Block()[:in.Size]
	} else {
		f, err := fs.Data(in)
		if err != nil {
			return "", err
		}
		target = make([]byte, in.Size)
		if _, err := f.ReadAt(target, 0); err != nil {
			return "", err
		}
	}
	for _, b := range target {
		if b == 0 {
			return "", fmt.Errorf("ext4: inode %d: symlink target holds a NUL", in.Number)
		}
	}
	return string(target), nil
}
