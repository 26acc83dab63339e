package ext4

// Blocks returns where the blocks of an inode lie, in bytes on the disk.
func (fs *FS) Blocks(in *Inode) ([]int64, error) {
	extents, err := fs.extents(in, nil)
	var out []int64
	for _, e := range extents {
		for i := range e.count {
			out = append(out, int64(e.physical+i)*int64(fs.sb.blockSize))
		}
	}
	return out, err
}

// NameHash is the hash of a name under a seed.
func NameHash(version byte, seed [4]uint32, name string) (uint32, error) {
	fs := FS{sb: super{hashSeed: seed}}
	return fs.nameHash(version, name)
}

// DecodeACL is that of the reader.
func DecodeACL(data []byte) ([]byte, error) { return decodeACL(data) }
