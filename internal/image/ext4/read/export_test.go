package read

// NameHash returns the hash of a name with a seed.
func NameHash(version byte, seed [4]uint32, name string) (uint32, error) {
	fs := FS{sb: Superblock{HashSeed: seed}}
	return fs.nameHash(version, name)
}

// DecodeACL converts an access control list from the form on disk.
func DecodeACL(data []byte) ([]byte, error) { return decodeACL(data) }
