package write

// NameHash returns the hash of a name with a seed.
func NameHash(seed [16]byte, name string) uint32 { return newDirHash(seed).sum(name) }
