package write

// WriterHash is the hash that directories are written with.
func WriterHash(seed [16]byte, name string) uint32 { return newDirHash(seed).sum(name) }
