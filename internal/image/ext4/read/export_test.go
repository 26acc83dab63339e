package read

// NameHash is the hash of a name under a seed.
func NameHash(version byte, seed [4]uint32, name string) (uint32, error) {
	fs := FS{sb: Superblock{HashSeed: seed}}
	return fs.nameHash(version, name)
}

// DecodeACL is that of the reader.
func DecodeACL(data []byte) ([]byte, error) { return decodeACL(data) }
